"""Which runs may show a planted bug: predicates on plans, and plans changed so that they do."""

from collections.abc import Sequence
from dataclasses import replace

from support.simulated.kafka import BASE_MS
from support.simulated.plan import DAY_MS, Fault, FaultKind, Plan


def always(plan: Plan) -> bool:
    """Any run will do."""
    return True


def sums(plan: Plan) -> bool:
    """Doubles are summed by device."""
    return plan.topology != "items"


def old_rows(plan: Plan) -> bool:
    """Rows come to their retention's end."""
    return sums(plan) and any(s.event_time < BASE_MS - DAY_MS // 2 for s in plan.sendings)


def corrected(plan: Plan) -> bool:
    """A higher generation takes over."""
    return plan.corrected_at is not None


def restarts(plan: Plan) -> bool:
    """A worker is killed when it has checkpoints."""
    return any(f.kind == "kill" and f.target.startswith("worker") and f.at > 12 for f in plan.faults)


def rekeying_restarts(plan: Plan) -> bool:
    """A worker that rekeys is killed."""
    return restarts(plan) and plan.topology == "items"


def many_restarts(plan: Plan) -> Plan:
    """Workers are killed again and again, and have checkpoints to go on from."""
    kills = [
        Fault(at * plan.span, "kill", f"worker{i % 2}", 0.5) for i, at in enumerate((0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9))
    ]
    return replace(plan, faults=tuple(kills), checkpoint_seconds=3.0, corrected_at=None, static=True)


def many_restarts_and_repeats(plan: Plan) -> Plan | bool:
    """Besides, events are sent again."""
    return many_restarts(plan) if sums(plan) and sum(s.times > 1 for s in plan.sendings) > 2 else False


def lost_deliveries(plan: Plan) -> bool:
    """Kafka does not have all that was sent to it, and says so."""
    return plan.weather.delivery_lost > 0


def deliveries_lost_between_checkpoints(plan: Plan) -> Plan:
    """Kafka does not have all that was sent to it and says so late, when checkpoints have been written meanwhile."""
    weather = replace(plan.weather, latency=(0.002, 0.04), delivery_lost=0.06)
    return replace(plan, faults=(), weather=weather, checkpoint_seconds=3.0, failpoint=0.0, corrected_at=None)


def _sinks(plan: Plan, kind: FaultKind, times: Sequence[float]) -> tuple[Fault, ...]:
    return tuple(Fault(at * plan.span, kind, f"sink{i % 2}", 2.0) for i, at in enumerate(times))


def sinks_killed_amid_an_outage(plan: Plan) -> Plan:
    """Both sinks are killed while they wait for Cassandra."""
    away = Fault(0.4 * plan.span, "node down", "node1 node2", 0.5 * plan.span)
    return replace(plan, faults=(away, *_sinks(plan, "kill", (0.6, 0.65, 0.8, 0.85))), fetch_most=5)


def sinks_stopped_amid_an_outage(plan: Plan) -> Plan:
    """Sinks give up what they cannot write."""
    away = Fault(0.4 * plan.span, "node down", "node1 node2", 0.5 * plan.span)
    return replace(plan, faults=(away, *_sinks(plan, "stop", (0.6, 0.85))))


def sinks_killed_amid_waiting_writes(plan: Plan) -> Plan | bool:
    """Some writes go on waiting while later ones are acknowledged, and sinks die meanwhile."""
    if len({s.device for s in plan.sendings}) < 6 or len(plan.sendings) < 45:
        return False
    kills = _sinks(plan, "kill", (0.5, 0.65, 0.8, 0.95))
    return replace(plan, faults=kills, mood=replace(plan.mood, hot=0.4), fetch_most=5, fetch_wait=(1.0, 3.0))


def sink_zombie(plan: Plan) -> bool:
    """A sink is paused for so long that others take over."""
    return any(f.kind in ("pause", "replace") and f.target.startswith("sink") and f.seconds > 12 for f in plan.faults)


def garbage(plan: Plan) -> bool:
    """Bytes that are no event are sent."""
    return any(s.garbage for s in plan.sendings)
