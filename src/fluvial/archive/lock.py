"""One archiver per topic and directory: two would write the same offsets twice."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fluvial.archive.layout import ArchiveError, topic_folder


@contextmanager
def archiving(directory: Path, topic: str) -> Iterator[None]:
    """Hold a topic's archive while the block runs; the system lets go of it when the process dies.

    Raises:
        ArchiveError: another process holds it.
    """
    folder = topic_folder(directory, topic)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ArchiveError(
                f"another process archives {topic} into {directory}", hint="wait for it, or stop it with SIGTERM"
            ) from None
        yield
