"""Simulated sensors: a daily wave, noise, some spikes; every sensor reports all its metrics at once, with a counter."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fluvial.producers.random_blocks import BLOCK_EVENTS, SENSOR_BLOCKS, SENSOR_TRAITS, generator, numbered
from fluvial.records import F64, I64, U8, Column, Doubles, Longs, Spans
from fluvial.schemas.columns import spans_from_strings

INTERVAL_SECONDS = 10.0
SPIKE_SHARE = 0.001
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Metric:
    """How one metric behaves: daily mean and amplitude, how much sensors differ, noise, and its limits."""

    name: str
    unit: str
    mean: float
    daily: float
    between: float
    noise: float
    low: float
    high: float


METRICS = (
    Metric("temperature", "°C", 14.0, 6.0, 2.0, 0.2, -40.0, 60.0),
    Metric("humidity", "%", 65.0, -15.0, 5.0, 1.0, 0.0, 100.0),
    Metric("pressure", "hPa", 1013.0, 2.0, 6.0, 0.3, 870.0, 1085.0),
    Metric("pm2.5", "µg/m³", 12.0, 4.0, 4.0, 2.0, 0.0, 500.0),
)


class Sensors:
    """The readings of ``keys`` sensors at about one site per 20 of them.

    Every sensor measures each metric once in `INTERVAL_SECONDS`, or as often as ``per_second`` readings of all of them
    together make it. The same seed gives the same sensors and readings.
    """

    def __init__(self, seed: int, keys: int, start_ms: int, per_second: float | None = None) -> None:
        self._seed = seed
        self._start_ms = start_ms
        self._keys = keys
        self._per_second = per_second or keys * len(METRICS) / INTERVAL_SECONDS
        traits = generator(seed, SENSOR_TRAITS)
        sites = max(1, keys // 20)
        # Sensors report in an order of their own, not in that of their names.
        self._order = traits.permutation(keys)
        self._site_of = traits.integers(0, sites, keys)
        self._phase = traits.normal(0.0, 0.5, keys)
        self._offset = traits.normal(0.0, 1.0, (keys, len(METRICS)))
        self._names = _table(numbered("sensor-", np.arange(keys), max(4, len(str(keys - 1)))))
        self._sites = _table(numbered("site-", np.arange(sites), max(2, len(str(sites - 1)))))
        self._metrics = spans_from_strings([m.name for m in METRICS])
        self._units = spans_from_strings([m.unit for m in METRICS])

    @property
    def per_second(self) -> float:
        """Readings per second of event time."""
        return self._per_second

    def block(self, number: int) -> Mapping[str, Column]:
        """Return the readings of a block, in the order of their event times."""
        draw = generator(self._seed, SENSOR_BLOCKS, number)
        index = number * BLOCK_EVENTS + np.arange(BLOCK_EVENTS)
        report, metric = np.divmod(index, len(METRICS))
        round_, place = np.divmod(report, self._keys)
        sensor = self._order[place]
        second = report * len(METRICS) / self._per_second
        every = np.ones(BLOCK_EVENTS, np.bool_)
        return {
            "sensor_id": self._names.take(sensor),
            "site": self._sites.take(self._site_of[sensor]),
            "metric": self._metrics.take(metric),
            "event_time": Longs(self._start_ms + np.floor(second * 1000.0).astype(np.int64), every),
            "value": Doubles(self._values(draw, sensor, metric, second), every),
            "unit": self._units.take(metric),
            "sequence": Longs(round_, every),
        }

    def _values(self, draw: np.random.Generator, sensor: I64, metric: I64, second: F64) -> F64:
        def trait(name: str) -> F64:
            values: F64 = np.array([getattr(m, name) for m in METRICS])[metric]
            return values

        day = (self._start_ms / 1000.0 + second) / _DAY_SECONDS
        noise = draw.normal(0.0, 1.0, BLOCK_EVENTS)
        spike = draw.random(BLOCK_EVENTS) < SPIKE_SHARE
        # Warmest in the afternoon: the wave's top is at 15:00 UTC, give or take each sensor's phase.
        wave = np.sin(2.0 * np.pi * (day - 0.375) + self._phase[sensor])
        value = trait("mean") + trait("between") * self._offset[sensor, metric] + trait("daily") * wave
        value += trait("noise") * noise * np.where(spike, 30.0, 1.0)
        # Two decimals, as devices send them.
        return np.round(np.clip(value, trait("low"), trait("high")), 2).astype(np.float64)


def _table(names: U8) -> Spans:
    n, width = names.shape
    return Spans(names.reshape(-1), np.arange(n) * width, np.full(n, width, np.int64))
