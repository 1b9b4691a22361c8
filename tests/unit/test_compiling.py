"""The kernels' compile cache: one folder per state of all kernel sources."""

import ast
import os
from pathlib import Path

import numba

from fluvial.compiling import kernel_digest, kernel_sources


def test_every_file_with_a_kernel_is_part_of_the_digest() -> None:
    names = {f.name for f in kernel_sources()}
    assert {"kernel.py", "arena.py", "emission.py", "layout.py", "prefetch.py", "walk.py", "packing.py"} <= names


def test_kernels_take_njit_from_here_and_import_only_what_the_digest_covers() -> None:
    covered = {f.stem for f in kernel_sources()}
    plain_python = {"columns", "inflate", "records", "compiling", "errors", "shapes", "batches"}
    for f in kernel_sources():
        if not any(line.startswith("@njit") for line in f.read_text().splitlines()):
            continue
        for node in ast.walk(ast.parse(f.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not (node.module == "numba" and any(a.name == "njit" for a in node.names)), f
                if node.module.startswith("fluvial."):
                    assert node.module.rsplit(".", 1)[-1] in covered | plain_python, f"{f} takes from {node.module}"


def test_a_change_in_any_source_changes_the_digest(tmp_path: Path) -> None:
    a, b = tmp_path / "a.py", tmp_path / "b.py"
    a.write_text("x = 1\n")
    b.write_text("y = 1\n")
    before = kernel_digest([a, b])
    b.write_text("y = 2\n")
    assert kernel_digest([a, b]) != before


def test_numba_is_told_to_use_the_folder_of_the_present_sources() -> None:
    if not os.environ.get("NUMBA_CACHE_DIR"):
        assert Path(numba.config.CACHE_DIR).name == kernel_digest(kernel_sources())
