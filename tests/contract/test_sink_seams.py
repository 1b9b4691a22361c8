"""What the sink asks of Faust beside the batch transport: whether a rebalance is under way, and pausing partitions."""

import inspect

from fluvial.settings import KafkaSettings
from fluvial.transport.app import BatchTopic, batch_app
from fluvial.transport.driver import Consumer


def test_the_flow_control_says_whether_a_rebalance_is_under_way() -> None:
    app = batch_app("contract", KafkaSettings(), topics=[BatchTopic("t")])
    app.flow_control.resume()
    assert app.flow_control.is_active()
    app.flow_control.suspend()
    assert not app.flow_control.is_active()
    assert app.rebalancing is False


def test_the_consumer_can_pause_partitions_and_says_whether_its_flow_is_stopped() -> None:
    for name in ("pause_partitions", "resume_partitions", "assignment", "stop_flow", "resume_flow"):
        assert callable(getattr(Consumer, name))
    assert inspect.getattr_static(Consumer, "flow_active") is not None
