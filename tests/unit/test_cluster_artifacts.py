import hashlib
import io
import re
import tarfile
from importlib.resources import files
from pathlib import Path

import pytest

from fluvial.caches import cache_dir
from fluvial.cluster.artifacts import Artifact, read_lock, resolve, unpack
from fluvial.cluster.progress import Step
from fluvial.errors import ClusterError

CONTENT = b"a jar"
JAR = Artifact("org.example", "thing", "jar", "", "1.0", hashlib.sha256(CONTENT).hexdigest())


class FakeRepository:
    """Serves ``content`` for every artefact, and counts."""

    def __init__(self, cache: Path, content: bytes = CONTENT) -> None:
        self._root = cache / "maven"
        self._content = content
        self.served: list[str] = []

    def fetch(self, artifact: Artifact) -> Path:
        path = self._root / artifact.relative_path
        assert not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self._content)
        self.served.append(artifact.coordinate)
        return path


def test_the_committed_lock_has_every_server_and_a_checksum_for_each_file() -> None:
    lock = read_lock()
    assert set(lock) == {"kafka", "cassandra", "registry"}
    names = {a.name for group in lock.values() for a in group}
    assert {"kafka_2.13", "logback-classic", "cassandra-all", "jamm", "apicurio-registry-app"} <= names
    assert all(re.fullmatch("[0-9a-f]{64}", a.sha256) for group in lock.values() for a in group)


def test_the_committed_lock_names_no_host() -> None:
    text = files("fluvial.cluster").joinpath("jars.lock").read_text()
    assert "://" not in text
    assert "https" not in text


def test_a_missing_file_is_fetched_and_a_right_one_is_not_fetched_again(tmp_path: Path) -> None:
    source = FakeRepository(tmp_path)
    (path,) = resolve([JAR], cache=tmp_path, source=source)
    assert path.read_bytes() == CONTENT
    resolve([JAR], cache=tmp_path, source=source)
    assert source.served == [JAR.coordinate]


def test_a_damaged_file_is_fetched_again(tmp_path: Path) -> None:
    source = FakeRepository(tmp_path)
    (path,) = resolve([JAR], cache=tmp_path, source=source)
    path.write_bytes(b"half a j")
    (path,) = resolve([JAR], cache=tmp_path, source=source)
    assert path.read_bytes() == CONTENT


def test_a_file_with_another_checksum_is_refused_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"org\.example:thing:jar:1\.0 has SHA-256"):
        resolve([JAR], cache=tmp_path, source=FakeRepository(tmp_path, b"something else"))
    assert not (tmp_path / "maven" / JAR.relative_path).exists()


def test_fetching_is_reported_up_to_the_last_file(tmp_path: Path) -> None:
    steps: list[Step] = []
    resolve([JAR], steps.append, cache=tmp_path, source=FakeRepository(tmp_path))
    assert [(s.done, s.total) for s in steps] == [(0, 1), (1, 1)]


def test_a_coordinate_may_have_a_classifier() -> None:
    native = Artifact.parse("io.example:native:jar:linux-x86_64:2.1", "00")
    assert native.file_name == "native-2.1-linux-x86_64.jar"
    assert native.relative_path == Path("io/example/native/2.1/native-2.1-linux-x86_64.jar")
    assert native.coordinate == "io.example:native:jar:linux-x86_64:2.1"


@pytest.mark.parametrize("coordinate", ["a:b:1", "a:b:jar:c:1:2", "a::jar:1", ""])
def test_a_malformed_coordinate_is_refused(coordinate: str) -> None:
    with pytest.raises(ClusterError, match="malformed"):
        Artifact.parse(coordinate, "00")


def test_an_archive_is_unpacked_once_and_not_kept(tmp_path: Path) -> None:
    archive = _archive({"lib/a.txt": b"hello"})
    artifact = Artifact("org.example", "app", "tar.gz", "all", "3", hashlib.sha256(archive).hexdigest())
    source = FakeRepository(tmp_path, archive)
    folder = unpack(artifact, cache=tmp_path, source=source)
    assert (folder / "lib" / "a.txt").read_bytes() == b"hello"
    assert not (tmp_path / "maven" / artifact.relative_path).exists()
    assert unpack(artifact, cache=tmp_path, source=source) == folder
    assert len(source.served) == 1


def test_an_unpacking_that_was_cut_off_is_done_anew(tmp_path: Path) -> None:
    archive = _archive({"b.txt": b"whole"})
    artifact = Artifact("org.example", "app", "tar.gz", "", "3", hashlib.sha256(archive).hexdigest())
    expected = tmp_path / "unpacked" / f"app-3-{artifact.sha256[:12]}"
    left_over = expected.with_name(expected.name + ".partial")
    left_over.mkdir(parents=True)
    (left_over / "stale.txt").write_text("half")
    folder = unpack(artifact, cache=tmp_path, source=FakeRepository(tmp_path, archive))
    assert [p.name for p in folder.iterdir()] == ["b.txt"]


def test_the_cache_is_where_the_environment_says() -> None:
    assert cache_dir({"FLUVIAL_CACHE_DIR": "/x", "XDG_CACHE_HOME": "/y"}) == Path("/x")
    assert cache_dir({"XDG_CACHE_HOME": "/y"}) == Path("/y/fluvial")
    assert cache_dir({}) == Path.home() / ".cache" / "fluvial"


def _archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
