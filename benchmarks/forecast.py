"""How wrong the forecasts of distribution_manager/core/forecast.py are, on loads of several shapes.

    python benchmarks/forecast.py [seed]

A value a minute, in messages a second, for ten days, of which the last seven are judged. Every value is forecast some
minutes ahead by each forecast, beside "the last value" and "the mean of the last hour": the errors are those of all
these. An overload begins with the first of three minutes over the threshold, an alarm with the first of three in which
the load, or the forecast for some minute within the horizon, is over it. An alarm's lead is how much earlier that is
than the overload; it is false when no overload follows within half an hour. The same seed makes the same table,
which docs/promotion.md has.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from random import Random

from distribution_manager.core.forecast import Forecast, LastValue, Mean, Smoothing, default_forecast

DAY = 1440
DAYS, LEARNING_DAYS = 10, 3
HORIZONS = (1, 5, 10, 30)
ALARM_HORIZON = 10
FOLLOWS_WITHIN = 30
SUSTAINED = 3
RELEASE_SHARE = 0.8
"""An alarm, or an overload, ends when the value is below this share of the threshold."""

Load = Callable[[Random], Iterator[float]]


def diurnal(random: Random) -> Iterator[float]:
    for minute in range(DAYS * DAY):
        yield 500 - 400 * math.cos(2 * math.pi * minute / DAY) + random.gauss(0, 25)


def spikes_by_the_clock(random: Random) -> Iterator[float]:
    """Every four hours, for ten minutes, as jobs do."""
    for minute in range(DAYS * DAY):
        yield (1000 if minute % 240 in range(60, 70) else 100) + random.gauss(0, 10)


def spikes_at_random(random: Random) -> Iterator[float]:
    left = 0
    for _ in range(DAYS * DAY):
        if left == 0 and random.random() < 1 / 240:
            left = 10
        left = max(0, left - 1)
        yield (1000 if left else 100) + random.gauss(0, 10)


def ramps(random: Random) -> Iterator[float]:
    """From 100 to 1,000 within two hours, an hour there and quickly back, at any time: no season."""
    value, phase, left = 100.0, "calm", 300
    for _ in range(DAYS * DAY):
        left -= 1
        if phase == "calm" and left <= 0:
            phase, left = "rise", 120
        elif phase == "rise" and left <= 0:
            phase, left = "high", 60
        elif phase == "high" and left <= 0:
            phase, left = "fall", 15
        elif phase == "fall" and left <= 0:
            phase, left, value = "calm", random.randint(120, 600), 100.0
        value += {"rise": 900 / 120, "fall": -900 / 15}.get(phase, 0)
        yield value + random.gauss(0, 20)


def noise(random: Random) -> Iterator[float]:
    for _ in range(DAYS * DAY):
        yield 500 + random.gauss(0, 100)


LOADS: dict[str, tuple[Load, float]] = {
    "diurnal": (diurnal, 800),
    "spikes by the clock": (spikes_by_the_clock, 800),
    "spikes at random": (spikes_at_random, 800),
    "ramps": (ramps, 700),
    "noise alone": (noise, 900),
}
FORECASTS: dict[str, Callable[[], Forecast]] = {
    "last value": LastValue,
    "mean of the hour": lambda: Mean(60),
    "damped trend": Smoothing,
    "trend and season": lambda: Smoothing(DAY),
    "default": lambda: default_forecast(ALARM_HORIZON, DAY),
}


def errors(values: list[float], forecast: Forecast) -> dict[int, tuple[float, float]]:
    """Mean absolute error and root of the mean squared error, by minutes ahead."""
    absolute = dict.fromkeys(HORIZONS, 0.0)
    squared = dict.fromkeys(HORIZONS, 0.0)
    judged = range(LEARNING_DAYS * DAY, len(values) - max(HORIZONS))
    for minute, value in enumerate(values):
        forecast.observe(value)
        if minute in judged:
            for horizon in HORIZONS:
                error = forecast.ahead(horizon) - values[minute + horizon]
                absolute[horizon] += abs(error)
                squared[horizon] += error * error
    count = len(judged)
    return {horizon: (absolute[horizon] / count, math.sqrt(squared[horizon] / count)) for horizon in HORIZONS}


def begins(values: list[float], threshold: float) -> list[int]:
    """When the values go over the threshold and stay, having been below its release since the last time."""
    found, over, run = [], False, 0
    for minute, value in enumerate(values):
        run = run + 1 if value >= threshold else 0
        if not over and run == SUSTAINED:
            over = True
            found.append(minute - SUSTAINED + 1)
        elif over and value < RELEASE_SHARE * threshold:
            over = False
    return found


def alarms(values: list[float], forecast: Forecast, threshold: float) -> tuple[list[int], int, int]:
    """Lead of every overload that was foreseen (minutes), the number of overloads, and of false alarms."""
    foreseen = []
    for value in values:
        forecast.observe(value)
        foreseen.append(max(value, *(forecast.ahead(horizon) for horizon in range(1, ALARM_HORIZON + 1))))
    after = LEARNING_DAYS * DAY
    overloads = [minute for minute in begins(values, threshold) if minute >= after]
    raised = [minute for minute in begins(foreseen, threshold) if minute >= after]
    leads = []
    false = 0
    for alarm in raised:
        following = [minute for minute in overloads if alarm <= minute <= alarm + FOLLOWS_WITHIN]
        if following:
            leads.append(following[0] - alarm)
        else:
            false += 1
    return leads, len(overloads), false


def main(seed: int) -> None:
    heads = " | ".join(f"{horizon} min" for horizon in HORIZONS)
    print(f"| load | forecast | {heads} | foreseen | lead, min | false alarms |")
    print(f"|{' --- |' * (len(HORIZONS) + 5)}")
    for name, (load, threshold) in LOADS.items():
        values = [max(0.0, value) for value in load(Random(f"{seed} {name}"))]
        for label, make in FORECASTS.items():
            found = errors(values, make())
            leads, overloads, false = alarms(values, make(), threshold)
            cells = " | ".join(f"{found[horizon][0]:.0f} / {found[horizon][1]:.0f}" for horizon in HORIZONS)
            ahead = [lead for lead in leads if lead > 0]
            lead = f"{sum(ahead) / len(ahead):.0f}" if ahead else "-"
            print(f"| {name} | {label} | {cells} | {len(ahead)} of {overloads} | {lead} | {false} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
