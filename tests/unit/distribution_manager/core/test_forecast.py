"""Forecasts: what they say of loads whose future is known, with gaps and with little to go by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from random import Random

import pytest

from distribution_manager.core.forecast import Forecast, LastValue, LeastWrong, Mean, Smoothing, default_forecast

PERIOD = 48
EVERY: list[Callable[[], Forecast]] = [
    LastValue,
    lambda: Mean(3),
    Smoothing,
    lambda: Smoothing(PERIOD),
    lambda: default_forecast(5, PERIOD),
]


def told(forecast: Forecast, values: Iterable[float | None]) -> Forecast:
    for value in values:
        forecast.observe(value)
    return forecast


def daily(interval: int) -> float:
    return 500 - 400 * math.cos(2 * math.pi * interval / PERIOD)


@pytest.mark.parametrize("make", EVERY)
def test_nothing_observed_is_nothing_expected(make: Callable[[], Forecast]) -> None:
    forecast = make()
    assert forecast.ahead(1) == 0
    forecast.observe(None)
    assert forecast.ahead(10) == 0


@pytest.mark.parametrize("make", EVERY)
def test_one_value_is_all_there_is_to_say(make: Callable[[], Forecast]) -> None:
    forecast = make()
    forecast.observe(7.0)
    assert forecast.ahead(1) == forecast.ahead(30) == 7.0


def test_the_mean_is_of_its_window() -> None:
    assert told(Mean(2), [100, 1, 3, None]).ahead(1) == 2


def test_a_trend_goes_on_and_is_damped() -> None:
    trend = told(Smoothing(), range(0, 400, 4))
    assert trend.ahead(1) == pytest.approx(400, abs=6)
    assert 420 < trend.ahead(10) < 440
    assert trend.ahead(1_000) < 396 + 50 * 4, "for ever it does not"


def test_a_trend_is_nothing_in_steady_noise() -> None:
    random = Random(1)
    trend = told(Smoothing(), (500 + random.gauss(0, 20) for _ in range(500)))
    assert trend.ahead(30) == pytest.approx(500, abs=120)


def test_a_forecast_is_never_below_nothing() -> None:
    assert told(Smoothing(), range(300, 0, -10)).ahead(30) == 0


def test_a_season_is_a_trend_until_it_has_passed_and_is_known_then() -> None:
    young = told(Smoothing(PERIOD), map(daily, range(PERIOD - 1)))
    trend = told(Smoothing(), map(daily, range(PERIOD - 1)))
    assert young.ahead(5) == trend.ahead(5)
    grown = told(Smoothing(PERIOD), map(daily, range(4 * PERIOD)))
    for ahead in (1, 10, PERIOD // 2, PERIOD + 3):
        assert grown.ahead(ahead) == pytest.approx(daily(4 * PERIOD + ahead - 1), abs=25)


def test_a_gap_moves_the_season_on() -> None:
    values: list[float | None] = [daily(interval) for interval in range(3 * PERIOD)]
    season = told(Smoothing(PERIOD), [*values, *[None] * (PERIOD // 2)])
    assert season.ahead(1) == pytest.approx(daily(PERIOD // 2), abs=40)


def test_a_first_season_with_gaps_is_a_season() -> None:
    values = [None if interval % 5 == 0 and interval < PERIOD else daily(interval) for interval in range(5 * PERIOD)]
    season = told(Smoothing(PERIOD), values)
    assert season.ahead(PERIOD // 2) == pytest.approx(daily(PERIOD // 2 - 1), abs=120)
    assert told(Smoothing(PERIOD), [None] * 3 * PERIOD).ahead(1) == 0


def test_the_least_wrong_is_asked() -> None:
    forecast = LeastWrong([LastValue(), Smoothing()], horizon=5)
    told(forecast, range(0, 400, 4))
    assert isinstance(forecast.chosen, Smoothing)
    steady = LeastWrong([LastValue(), Smoothing()], horizon=5)
    told(steady, [100 if interval % 40 < 20 else 900 for interval in range(400)])
    assert isinstance(steady.chosen, LastValue), "a trend overshoots at every step"


def test_of_equals_the_first_and_before_any_was_judged() -> None:
    assert isinstance(LeastWrong([LastValue(), Smoothing()], horizon=5).chosen, LastValue)


def test_a_value_that_is_missing_judges_nobody() -> None:
    forecast = LeastWrong([LastValue(), Smoothing()], horizon=5)
    told(forecast, [*range(0, 40, 4), *[None] * 20])
    assert isinstance(forecast.chosen, Smoothing)


def test_before_the_horizon_has_passed_once_the_next_interval_judges() -> None:
    forecast = LeastWrong([LastValue(), Smoothing()], horizon=100)
    told(forecast, range(0, 40, 4))
    assert isinstance(forecast.chosen, Smoothing)


def test_the_default_learns_the_season() -> None:
    random = Random(2)
    forecast = default_forecast(10, PERIOD)
    told(forecast, (daily(interval) + random.gauss(0, 10) for interval in range(6 * PERIOD)))
    assert forecast.ahead(PERIOD // 2) == pytest.approx(daily(PERIOD // 2 - 1), abs=60)
