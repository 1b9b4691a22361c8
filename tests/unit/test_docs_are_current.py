"""The documentation agrees with the code: generated pages are current, commands documented, links lead somewhere."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from fluvial.cli import build_app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```$", re.M | re.S)


def _generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fluvial_docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


GENERATED = _generate().pages()
GROUPS = [str(g.name or g.typer_instance.info.name) for g in build_app().registered_groups if g.typer_instance]
COMMANDS = re.findall(r"^## fluvial (.+)$", (DOCS / "reference" / "cli.md").read_text(encoding="utf-8"), re.M)
_CALL = re.compile(rf"(?:^\$ |`)fluvial ((?:(?:{'|'.join(GROUPS)}) )?[a-z-]+)([^\n`#|]*)", re.M)


def test_the_reference_has_every_command() -> None:
    alone = [str(c.name or getattr(c.callback, "__name__", "")) for c in build_app().registered_commands]
    assert {*alone, *GROUPS} == {name.partition(" ")[0] for name in COMMANDS}


@pytest.mark.parametrize("path", GENERATED, ids=lambda p: p.name)
def test_a_generated_page_is_what_the_code_says(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == GENERATED[path], f"run python docs/generate.py, then commit {path.name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_reference_with_an_example(name: str) -> None:
    page = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    _, found, section = page.partition(f"## fluvial {name}\n")
    assert found
    assert f"\n$ fluvial {name}" in section.partition("\n## ")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    links = [link.partition("#")[0] for link in _LINK.findall(text) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_line_has_a_command_and_options_that_exist(page: Path) -> None:
    reference = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    sections = {name: reference.partition(f"## fluvial {name}\n")[2].partition("\n## ")[0] for name in COMMANDS}
    text = re.sub(r" *\\\n *", " ", page.read_text(encoding="utf-8"))
    wrong = []
    for name, rest in _CALL.findall(text):
        if name not in sections and name not in GROUPS:
            wrong.append(f"fluvial {name}")
        wrong += [
            f"fluvial {name} {o}" for o in re.findall(r" (--[a-z-]+)", rest) if f"`{o}`" not in sections.get(name, "")
        ]
    assert [w for w in wrong if not w.endswith("--help")] == []


def test_every_page_is_in_the_index() -> None:
    index = DOCS / "index.md"
    linked = {(DOCS / link).resolve() for link in _LINK.findall(index.read_text(encoding="utf-8"))}
    assert [p for p in DOCS.rglob("*.md") if p != index and p.resolve() not in linked] == []


def test_every_dependency_is_defended() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    record = (DOCS / "decisions" / "0005-dependencies.md").read_text(encoding="utf-8")
    extras = [d for name in ("test", "dev") for d in project["optional-dependencies"][name]]
    names = {re.split(r"[\[<>=~! ]", d)[0] for d in [*project["dependencies"], *extras]} - {"fluvial"}
    assert [n for n in sorted(names) if f"`{n}`" not in record] == []
