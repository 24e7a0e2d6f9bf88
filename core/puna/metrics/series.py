"""Counters and histograms whose series change at the cost of a dictionary's item.

A request changes about twenty series. Those of prometheus_client have locks, since several threads may change them.
Here the event loop alone changes and reads series. The text that Prometheus reads is the same.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

INFINITE = float("inf")


class CounterSeries(Collector):
    """A counter: a sum for each combination of labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._sums: dict[tuple[str, ...], float] = {}
        registry.register(self)

    def add(self, *labels: str, count: float = 1) -> None:
        """Add to the series of these labels, which begins with its first count."""
        self._sums[labels] = self._sums.get(labels, 0) + count

    def describe(self) -> Iterable[Metric]:
        """Return the counter without its series."""
        return [CounterMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterator[Metric]:
        """Yield the counter with its series."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, total in self._sums.items():
            family.add_metric(labels, total)
        yield family


class HistogramSeries(Collector):
    """A histogram: counts of values by upper bounds, and their sum, for each combination of labels."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        """`bounds` are in ascending order and finite."""
        self._name = name
        self._text = text
        self._labels = labels
        self._bounds = bounds
        self._counts: dict[tuple[str, ...], list[int]] = {}
        """Of each bound those values that are above the one before, and of none those above the last."""
        self._sums: dict[tuple[str, ...], float] = {}
        registry.register(self)

    def observe(self, *labels: str, values: Iterable[float]) -> None:
        """Count values in the series of these labels."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
            self._sums[labels] = 0.0
        total = 0.0
        for value in values:
            # A value that equals a bound belongs to it.
            counts[bisect_left(self._bounds, value)] += 1
            total += value
        self._sums[labels] += total

    def describe(self) -> Iterable[Metric]:
        """Return the histogram without its series."""
        return [HistogramMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterator[Metric]:
        """Yield the histogram with its series."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for labels, counts in self._counts.items():
            buckets, so_far = list[tuple[str, float]](), 0
            for bound, count in zip((*self._bounds, INFINITE), counts, strict=True):
                so_far += count
                buckets.append((floatToGoString(bound), so_far))  # type: ignore[no-untyped-call]
            family.add_metric(labels, buckets, self._sums[labels])
        yield family
