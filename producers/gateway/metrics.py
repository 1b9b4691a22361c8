"""What a gateway counts, for Prometheus. No sensor or key names: labels stay few."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fluvial.producers.gateway.gate import Gate


class GateMetrics(Collector):
    """A gate's counts at the moment of asking."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def collect(self) -> Iterator[Metric]:
        """Return the metrics."""
        events = CounterMetricFamily(
            "fluvial_gateway_events",
            "Events by topic and outcome: accepted (durably in the log), rejected (bad), busy, unavailable, denied, …",
            labels=["topic", "outcome"],
        )
        for (topic, outcome), n in sorted(self._gate.counts.items()):
            events.add_metric([topic, outcome], n)
        yield events
        yield GaugeMetricFamily(
            "fluvial_gateway_events_waiting", "Events that wait for Kafka's acknowledgement.", value=self._gate.waiting
        )
