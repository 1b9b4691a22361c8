"""The layers of the package: a module imports its own layer's parts or lower ones, never a sibling or a higher one."""

import ast
import sys
from pathlib import Path

import fluvial

# From the top: what a layer may import is itself and everything after it, except its siblings.
LAYERS = (
    ("cli",),
    ("services",),
    ("producers", "stream_apps", "sinks"),
    ("oracle",),
    ("schemas",),
    (
        "archive",
        "client",
        "transport",
        "cluster",
        "query",
        "query_reader",
        "plot",
        "tabular",
        "cassandra",
        "arrow_cells",
    ),
    ("records", "errors", "failpoints", "settings", "metrics", "logs", "instants", "compiling", "caches"),
)
FOLDERS = {"producers", "stream_apps", "sinks", "schemas"}
# The oracle shares nothing with what it judges but the declarations; the standard library comes on top.
ORACLE = {"fluvial.oracle", "fluvial.schemas.declarations"}
ORACLE_LIBRARIES = {"fastavro", "confluent_kafka", "cassandra"}
# Asked only when Faust's command line looks for the app.
ALLOWED = {("stream_apps", "services")}


def level(part: str) -> int:
    return next((i for i, layer in enumerate(LAYERS) if part in layer), -1)


def part_of(module: str) -> str | None:
    names = module.split(".")
    return names[1] if names[0] == "fluvial" and len(names) > 1 else None


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "fluvial":
                found |= {f"fluvial.{a.name}" for a in node.names}
    return found


def test_no_module_imports_a_sibling_or_a_higher_layer() -> None:
    core = Path(fluvial.__file__).parent
    parts: dict[str, list[Path]] = {}
    for path in core.rglob("*.py"):
        relative = path.relative_to(core).parts
        parts.setdefault(relative[0].removesuffix(".py"), []).append(path)
    for folder in FOLDERS:
        module = __import__(f"fluvial.{folder}", fromlist=["x"])
        parts[folder] = list(Path(module.__file__ or "").parent.glob("*.py"))
    assert set(parts) >= FOLDERS
    wrong = []
    for part, paths in parts.items():
        if part in ("__init__", "__main__", "py"):
            continue
        assert level(part) >= 0, f"give {part} a layer"
        for path in paths:
            for module in imports(path):
                other = part_of(module)
                if other is None or other == part or level(other) < 0 or (part, other) in ALLOWED:
                    continue
                if level(other) < level(part) or (level(other) == level(part) == 2):
                    wrong.append(f"{part}/{path.name} imports {module}")
    assert wrong == []


def test_no_module_is_imported_by_the_name_of_its_top_folder() -> None:
    for folder in FOLDERS:
        module = __import__(f"fluvial.{folder}", fromlist=["x"])
        for path in Path(module.__file__ or "").parent.glob("*.py"):
            assert not {m for m in imports(path) if m.split(".")[0] in FOLDERS}, path


def test_the_oracle_shares_no_code_with_the_engine() -> None:
    paths = sorted((Path(fluvial.__file__).parent / "oracle").glob("*.py"))
    assert len(paths) > 5
    for path in paths:
        for module in imports(path):
            top = module.split(".")[0]
            ours = module == "fluvial" or any(module == m or module.startswith(f"{m}.") for m in ORACLE)
            assert ours or top in sys.stdlib_module_names or top in ORACLE_LIBRARIES, f"{path.name} imports {module}"


def test_the_declarations_that_the_oracle_reads_are_data_only() -> None:
    from fluvial.schemas import declarations

    allowed = {"fluvial.errors", "fluvial.schemas.declarations"}
    assert {m for m in imports(Path(declarations.__file__)) if m.startswith("fluvial")} <= allowed
