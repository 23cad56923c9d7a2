"""A shard's load against its queue's thresholds, over time.

Model: each signal is a value that is too much from its threshold on, and enough no more below its release, which is
lower. A signal is *over* from the first until the second; forecasts count as values. It is *pressing* when it has been
over for long enough. So a load that swings around its threshold is over once, and one that spikes is not pressing.
Invariant: nothing here decides what is done about it; see promotion.py.
"""

from __future__ import annotations

import enum

import msgspec

from distribution_manager.core.forecast import Forecast, default_forecast

DAY_MS = 24 * 3_600_000
PERIOD_MAX = 1_440
"""Of a season, a day, in forecast steps: with steps shorter than a minute no season is learned."""
RELEASE_SHARE = 0.8
"""A signal is over until it is below this share of its threshold, but see DISK_RELEASE."""
DISK_RELEASE = 0.02
"""The disk's use must be lower than its threshold by this to be over no more: it moves slowly and little."""


class Signal(enum.StrEnum):
    MESSAGE_RATE = "message rate"
    """Messages sent, per second."""
    ACK_LATENCY = "ack latency"
    """The 99th percentile, milliseconds: see load.py."""
    CPU = "cpu"
    """Of the primary's node, the share of its core."""
    DISK = "disk"
    """The share of the disk of the primary's node that is used."""


class Thresholds(msgspec.Struct, frozen=True):
    """0 turns one off. ``cpu`` and ``disk_free`` are shares: 0 to 1."""

    message_rate: float = 0.0
    ack_latency_ms: float = 0.0
    cpu: float = 0.0
    disk_free: float = 0.0

    def of(self, signal: Signal) -> float:
        """As a bound that the signal's values should stay below; 0 where there is none."""
        if signal is Signal.MESSAGE_RATE:
            return self.message_rate
        if signal is Signal.ACK_LATENCY:
            return self.ack_latency_ms
        if signal is Signal.CPU:
            return self.cpu
        return 1.0 - self.disk_free if self.disk_free else 0.0


def release(signal: Signal, threshold: float) -> float:
    return threshold - DISK_RELEASE if signal is Signal.DISK else RELEASE_SHARE * threshold


class Pace(msgspec.Struct, frozen=True):
    """How load is watched. Milliseconds.

    ``window_ms``: what rates and percentiles are taken over, and the step of forecasts. ``after_ms``: how long a signal
    must be over to be pressing. ``horizon_ms``: how far ahead forecasts are asked.
    """

    window_ms: int = 60_000
    after_ms: int = 120_000
    horizon_ms: int = 600_000

    @property
    def steps(self) -> int:
        """Of a forecast, to the horizon."""
        return max(1, self.horizon_ms // self.window_ms)

    @property
    def period(self) -> int:
        """Steps of a day; 0 where those would be too many."""
        return DAY_MS // self.window_ms if DAY_MS // self.window_ms <= PERIOD_MAX else 0


class Outlook:
    """One value's forecast: told the newest value as often as one likes, it observes one per window."""

    def __init__(self, pace: Pace, now_ms: int) -> None:
        self._pace = pace
        self._forecast: Forecast = default_forecast(pace.steps, pace.period)
        self._step = now_ms // pace.window_ms
        self._peak = 0.0

    def look(self, value: float, now_ms: int) -> float:
        """The greatest value forecast within the horizon; 0 until two windows have been seen."""
        step = now_ms // self._pace.window_ms
        if step > self._step:
            for _ in range(min(step - self._step - 1, PERIOD_MAX)):
                self._forecast.observe(None)
            self._forecast.observe(value)
            self._step = step
            self._peak = max(self._forecast.ahead(ahead) for ahead in range(1, self._pace.steps + 1))
        return self._peak


class Reading(msgspec.Struct, frozen=True):
    """What a signal was at its last look, for those who ask why."""

    signal: Signal
    value: float
    forecast: float
    threshold: float
    over_ms: int

    @property
    def foreseen(self) -> bool:
        """It is over by its forecast only."""
        return self.value < self.threshold

    def __str__(self) -> str:
        ahead = f", {self.forecast:.4g} ahead" if self.forecast else ""
        return f"{self.signal} {self.value:.4g}{ahead}, threshold {self.threshold:.4g}, over for {self.over_ms} ms"


class Gauge:
    """One signal of one shard."""

    def __init__(self, signal: Signal) -> None:
        self.signal = signal
        self.over_total_ms = 0
        """How long it was over, altogether."""
        self._over_since_ms: int | None = None
        self._looked_ms = 0

    def look(self, value: float, forecast: float, threshold: float, now_ms: int) -> Reading:
        """``forecast`` 0: there is none."""
        worst = max(value, forecast)
        if threshold <= 0 or worst < release(self.signal, threshold):
            self._over_since_ms = None
        elif self._over_since_ms is not None:
            self.over_total_ms += now_ms - self._looked_ms
        elif worst >= threshold:
            self._over_since_ms = now_ms
        self._looked_ms = now_ms
        over_ms = 0 if self._over_since_ms is None else now_ms - self._over_since_ms
        return Reading(self.signal, value, forecast, threshold, over_ms)
