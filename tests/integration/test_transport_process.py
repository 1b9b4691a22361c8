"""Worker processes: what a signal or a failure leaves behind, and their exit status."""

import re
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from fluvial.settings import KafkaSettings
from support.batch_worker import exit_status, log_of, worker
from support.transport import committed, eventually, fresh_topic, group_id, produce

pytestmark = pytest.mark.integration


def generation(file: Path) -> int:
    """Return the group generation that a worker joined last, 0 before any."""
    return max((int(number) for number in re.findall(r"\(generation (\d+)\)", log_of(file))), default=0)


def finished(file: Path) -> list[tuple[int, int]]:
    """Return the batches that workers finished, as offset ranges."""
    text = file.read_text() if file.exists() else ""
    return [(int(a), int(b)) for a, b in (line.split() for line in text.splitlines())]


def lots(kafka: KafkaSettings, name: str) -> None:
    """Produce 40 record batches of some 1 kB."""
    for _ in range(40):
        produce(kafka, name, [b"x" * 100] * 10)


async def test_sigterm_finishes_the_batch_in_hand_commits_and_exits_with_zero(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    with fresh_topic(kafka) as name:
        lots(kafka, name)
        group, file = group_id(), tmp_path / "finished"
        with worker(kafka, name, group, file, "work") as first:
            await eventually(lambda: len(finished(file)) >= 2)
            first.send_signal(signal.SIGTERM)
            assert await exit_status(first) == 0
        assert committed(kafka, group, name) == [finished(file)[-1][1]]
        with worker(kafka, name, group, file, "work") as second:
            await eventually(lambda: finished(file)[-1][1] == 400)
            second.send_signal(signal.SIGTERM)
            assert await exit_status(second) == 0
        done = finished(file)
        assert done[0][0] == 0
        assert all(a[1] == b[0] for a, b in pairwise(done))


async def test_a_failed_agent_ends_the_process_with_an_explanation_and_no_acknowledgement(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    with fresh_topic(kafka) as name:
        lots(kafka, name)
        group, file = group_id(), tmp_path / "finished"
        with worker(kafka, name, group, file, "fail") as process:
            assert await exit_status(process) == 1
        assert "Stopping without acknowledging anything more: a bad day" in log_of(file)
        assert committed(kafka, group, name)[0] in (-1001, 0)


async def test_after_kill_9_what_was_not_committed_is_read_again(kafka: KafkaSettings, tmp_path: Path) -> None:
    with fresh_topic(kafka) as name:
        lots(kafka, name)
        group, file = group_id(), tmp_path / "finished"
        with worker(kafka, name, group, file, "work") as first:
            await eventually(lambda: len(finished(file)) >= 2)
            first.kill()
        before = len(finished(file))
        with worker(kafka, name, group, file, "work"):
            # The killed worker's session has to expire first.
            await eventually(lambda: finished(file)[-1][1] == 400, seconds=60)
        again = finished(file)[before:]
        assert again[0][0] == 0
        assert all(a[1] == b[0] for a, b in pairwise(again))


async def test_a_worker_frozen_past_its_session_goes_on_as_a_member_of_the_group(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    with fresh_topic(kafka, partitions=2) as name:
        lots(kafka, name)
        group, files = group_id(), [tmp_path / "first", tmp_path / "second"]
        with (
            worker(kafka, name, group, files[0], "work") as first,
            worker(kafka, name, group, files[1], "work") as second,
        ):
            await eventually(lambda: 0 < generation(files[0]) == generation(files[1]), 60)
            together = generation(files[0])
            first.send_signal(signal.SIGSTOP)
            # The other one gets both partitions once the session has expired.
            await eventually(lambda: generation(files[1]) > together, 60)
            first.send_signal(signal.SIGCONT)
            await eventually(lambda: generation(files[0]) == generation(files[1]) > together, 60)
            await eventually(lambda: 400 in [end for file in files for _, end in finished(file)], 60)
            for process in (first, second):
                process.send_signal(signal.SIGTERM)
            assert [await exit_status(first), await exit_status(second)] == [0, 0]
        assert committed(kafka, group, name, 2)[0] == 400
