"""What a load will be: forecasts of evenly spaced values.

Model: a forecast is told one value per interval (None: there is none), and says what it will be some intervals ahead.
The default keeps three and asks the one that has been least wrong lately: the last value, a damped trend, and a trend
with a season. So it is a season's forecast after a season has passed, a trend's before, and otherwise the last value.
Invariant: no forecast is below 0; none needs a history, a gap only widens the steps between what it has seen.

Sources: Hyndman & Athanasopoulos, "Forecasting: principles and practice", 3rd ed., sections 8.2 and 8.3 (exponential
smoothing with trend and additive season, after Holt 1957 and Winters 1960) and 5.10 (choice by the errors of forecasts
made as time went by); Gardner & McKenzie, "Forecasting trends in time series" (1985), for the damping.
docs/promotion.md has the errors on loads of several shapes.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from typing import Protocol

DAMPING = 0.98
"""What is left of a trend after one interval."""
TREND_LEVEL, TREND_SLOPE = 0.4, 0.1
"""How much of an observation's surprise goes into the level, and of the level's into the slope. Of the first few
more: of the n-th after the first, an n-th."""
SEASON_LEVEL, SEASON_SLOPE, SEASON_SHARE = 0.05, 0.005, 0.15
"""The same where there is a season, which explains most of what comes; and how much goes into a season's value."""
ERROR_MEMORY_INTERVALS = 240
"""About how many of the last forecasts count when the least wrong is chosen; of a season's length where there is one,
whatever is more."""
NEAR_MEMORY_INTERVALS = 6
"""The same of forecasts for the next interval, which count while none for the horizon does."""
JUDGED_MIN = 3
"""Forecasts that must have been judged for errors to count: of the first value all say the same."""
UNKNOWN = float("nan")


class Forecast(Protocol):
    """Values are of any unit, not below 0; so are the forecasts."""

    def observe(self, value: float | None) -> None:
        """The value of the interval that has just passed; None where nobody has it."""

    def ahead(self, intervals: int) -> float:
        """The value in so many intervals, 1 or more; 0 where nothing was ever observed."""


class LastValue:
    """As it was, it will be."""

    def __init__(self) -> None:
        self._value = 0.0

    def observe(self, value: float | None) -> None:
        if value is not None:
            self._value = value

    def ahead(self, intervals: int) -> float:
        return self._value


class Mean:
    """The mean of the last ``window`` intervals."""

    def __init__(self, window: int) -> None:
        self._values: deque[float] = deque(maxlen=window)

    def observe(self, value: float | None) -> None:
        if value is not None:
            self._values.append(value)

    def ahead(self, intervals: int) -> float:
        return sum(self._values) / len(self._values) if self._values else 0.0


class Smoothing:
    """Exponential smoothing with a damped trend and, where ``period`` > 0, an additive season of so many intervals.

    The first season is only remembered: until it has passed, this is a trend.
    """

    def __init__(self, period: int = 0) -> None:
        self._period = period
        self._place = 0
        """Of the next interval, within the season."""
        self._seen = 0
        self._level: float | None = None
        self._slope = 0.0
        self._season = array("f", [UNKNOWN]) * period
        self._seasonal = False

    def observe(self, value: float | None) -> None:
        if value is not None:
            self._smooth(value)
        elif self._level is not None:
            self._level, self._slope = max(self._level + DAMPING * self._slope, 0.0), DAMPING * self._slope
        if self._period:
            self._place = (self._place + 1) % self._period
            if self._place == 0 and not self._seasonal:
                self._begin_season()

    def _smooth(self, value: float) -> None:
        place = self._place
        if self._period and not self._seasonal:
            self._season[place] = value
        if self._level is None:
            self._level = value
            return
        expected = self._level + DAMPING * self._slope
        self._seen += 1
        share, slope_share, season = max(TREND_LEVEL, 1 / self._seen), max(TREND_SLOPE, 1 / self._seen), 0.0
        if self._seasonal:
            share, slope_share, season = SEASON_LEVEL, SEASON_SLOPE, self._season[place]
            self._season[place] += SEASON_SHARE * (value - expected - season)
        level = share * (value - season) + (1 - share) * expected
        self._slope = slope_share * (level - self._level) + (1 - slope_share) * DAMPING * self._slope
        self._level = level

    def _begin_season(self) -> None:
        """A whole season has been seen: what each interval was above or below its mean."""
        known = [value for value in self._season if value >= 0]  # not so of UNKNOWN
        if not known:
            return
        mean = sum(known) / len(known)
        for place, value in enumerate(self._season):
            self._season[place] = value - mean if value >= 0 else 0.0
        self._level, self._slope, self._seasonal = mean, 0.0, True

    def ahead(self, intervals: int) -> float:
        if self._level is None:
            return 0.0
        damped = DAMPING * (1 - DAMPING**intervals) / (1 - DAMPING)
        season = self._season[(self._place + intervals - 1) % self._period] if self._seasonal else 0.0
        return max(0.0, self._level + damped * self._slope + season)


class LeastWrong:
    """Asks the one of several forecasts that has been the least wrong about what was ``horizon`` intervals ahead.

    Before so many have passed, the one that has been the least wrong about the next interval.
    """

    def __init__(self, forecasts: Sequence[Forecast], horizon: int, memory: int = ERROR_MEMORY_INTERVALS) -> None:
        self.forecasts = forecasts
        self._records = [_Record(len(forecasts), horizon, memory), _Record(len(forecasts), 1, NEAR_MEMORY_INTERVALS)]
        """The one that counts first."""

    def observe(self, value: float | None) -> None:
        for record in self._records:
            record.judge(value)
        for forecast in self.forecasts:
            forecast.observe(value)
        for record in self._records:
            record.keep([forecast.ahead(record.horizon) for forecast in self.forecasts])

    @property
    def chosen(self) -> Forecast:
        """Of equals the first."""
        errors = next((record.errors for record in self._records if record.judged >= JUDGED_MIN), [0.0])
        return self.forecasts[errors.index(min(errors))]

    def ahead(self, intervals: int) -> float:
        return self.chosen.ahead(intervals)


class _Record:
    """What several forecasts have said ``horizon`` intervals ahead, and how wrong that was."""

    def __init__(self, forecasts: int, horizon: int, memory: int) -> None:
        self.horizon = horizon
        self.errors = [0.0] * forecasts
        """Mean absolute, smoothed."""
        self.judged = 0
        self._share = 1 / memory
        self._said: deque[list[float]] = deque()
        """Of the intervals that have not come yet."""

    def keep(self, said: list[float]) -> None:
        self._said.append(said)

    def judge(self, value: float | None) -> None:
        if len(self._said) < self.horizon:
            return
        said = self._said.popleft()
        if value is None:
            return
        self.judged += 1
        share = max(self._share, 2 / (self.judged + 1))
        for number, forecast in enumerate(said):
            self.errors[number] += share * (abs(forecast - value) - self.errors[number])


def default_forecast(horizon: int, period: int) -> Forecast:
    """``horizon``: the intervals ahead that matter most. ``period``: a season, 0 where none is to be learned."""
    forecasts: list[Forecast] = [LastValue(), Smoothing()]
    if period:
        forecasts.append(Smoothing(period))
    return LeastWrong(forecasts, max(1, horizon), max(ERROR_MEMORY_INTERVALS, period))
