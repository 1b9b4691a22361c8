import subprocess
import sys

import pytest
import typer

from fluvial.cli import build_app, main
from fluvial.cli.console import columns
from fluvial.errors import FluvialError


def _commands() -> list[str]:
    """Return the names of all commands; those of a group follow its name."""
    top = typer.main.get_command(build_app()).commands  # type: ignore[attr-defined]
    return [f"{name} {inner}".strip() for name, c in top.items() for inner in getattr(c, "commands", {"": None})]


@pytest.mark.parametrize("name", sorted(_commands()))
def test_the_help_of_every_command_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main([*name.split(), "--help"])
    assert e.value.code == 0
    assert f"Example: fluvial {name}" in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main(["--version"])
    assert e.value.code == 0
    assert capsys.readouterr().out.startswith("fluvial ")


def test_a_failure_prints_what_and_what_next_and_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise FluvialError("the sky fell at noon", hint="look up")

    monkeypatch.setattr("fluvial.cluster.LocalCluster.stop", fail)
    with pytest.raises(SystemExit) as e:
        main(["down"])
    assert e.value.code == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "Error: the sky fell at noon\n  Try: look up\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["up", "--nonsense"], ["up", "--brokers", "many"]])
def test_a_wrong_call_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main(arguments)
    assert e.value.code == 2
    assert "Error" in capsys.readouterr().err


def test_help_loads_nothing_heavy() -> None:
    heavy = ["aiokafka", "cassandra", "confluent_kafka", "faust", "jgo", "numba", "numpy", "pyarrow", "pydantic"]
    code = f"import sys\nimport fluvial.cli\nfluvial.cli.build_app()\nprint([m for m in {heavy!r} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_columns_align_text_left_and_numbers_right() -> None:
    table = columns(("NAME", "N"), [("a", "1,000"), ("long name", 7), ("b", "")])
    assert table.splitlines() == ["NAME           N", "a          1,000", "long name      7", "b"]


def test_plain_progress_tells_tenths_only(capsys: pytest.CaptureFixture[str]) -> None:
    from fluvial.cli.console import progress
    from fluvial.cluster import Step

    with progress() as report:
        for i in range(1001):
            report(Step("jars", "fetching", i, 1000))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[-1].endswith("jars: fetching (1000/1000)")
