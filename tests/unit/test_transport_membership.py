"""Lasting names of group members: the same at the next start, never two processes'."""

import subprocess
import sys
from pathlib import Path

from fluvial.transport.membership import HeldName, names_folder

HOLD = "import sys; from pathlib import Path; from fluvial.transport.membership import HeldName; "
HOLD += "print(HeldName(Path(sys.argv[1])).name, flush=True); sys.stdin.read()"


def test_a_name_is_taken_up_again_when_it_is_free(tmp_path: Path) -> None:
    with HeldName(tmp_path) as first, HeldName(tmp_path) as second:
        names = first.name, second.name
    assert names[0] != names[1]
    with HeldName(tmp_path) as again:
        assert again.name == names[0]
        with HeldName(tmp_path) as other:
            assert other.name == names[1]


def test_a_name_outlives_a_process_that_is_killed_and_is_not_given_twice(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        with HeldName(tmp_path) as mine:
            assert mine.name != name
        process.kill()
    with HeldName(tmp_path) as mine:
        assert mine.name == name


def test_a_name_that_was_damaged_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(b"\xff\x00not a token")
    with HeldName(tmp_path) as mine:
        name = mine.name
    with HeldName(tmp_path) as mine:
        assert mine.name == name


def test_groups_of_any_name_have_folders_of_their_own() -> None:
    folders = [names_folder(group) for group in ("a", "b", "../a", "a/b")]
    assert len({f.parent for f in folders}) == 1
    assert len(set(folders)) == 4
