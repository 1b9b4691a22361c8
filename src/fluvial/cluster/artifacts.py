"""The servers' jars: pinned by a lock with a SHA-256 each, fetched once by jgo, kept in the user's cache directory.

``jars.lock`` names coordinates and checksums and no host, so a mirror set up for jgo (``~/.config/jgo.conf``,
``[repositories]``) serves as well as the default. What is in the cache and right is never fetched again, so a second
run works offline.
"""

import fcntl
import hashlib
import shutil
import tarfile
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fluvial.caches import cache_dir
from fluvial.cluster.progress import Report, Step, silent
from fluvial.errors import ClusterError

if TYPE_CHECKING:
    from jgo.maven import MavenContext

PARALLEL_DOWNLOADS = 6
DOWNLOAD_TIMEOUT_SECONDS = 60


@dataclass(frozen=True, order=True)
class Artifact:
    """One file of a Maven repository and the SHA-256 (hex) that it must have."""

    group: str
    name: str
    packaging: str
    classifier: str
    version: str
    sha256: str

    @classmethod
    def parse(cls, coordinate: str, sha256: str) -> "Artifact":
        """Read ``group:name:packaging[:classifier]:version``.

        Raises:
            ClusterError: the coordinate has another shape.
        """
        parts = coordinate.split(":")
        if len(parts) == 4:
            parts.insert(3, "")
        if len(parts) != 5 or not all((*parts[:3], parts[4], sha256)):
            raise ClusterError(
                f"jars.lock: malformed entry {coordinate!r}", hint="write group:name:packaging[:classifier]:version"
            )
        group, name, packaging, classifier, version = parts
        return cls(group, name, packaging, classifier, version, sha256)

    @property
    def coordinate(self) -> str:
        """``group:name:packaging[:classifier]:version``."""
        return ":".join(x for x in (self.group, self.name, self.packaging, self.classifier, self.version) if x)

    @property
    def file_name(self) -> str:
        """The file's name in a Maven repository."""
        suffix = f"-{self.classifier}" if self.classifier else ""
        return f"{self.name}-{self.version}{suffix}.{self.packaging}"

    @property
    def relative_path(self) -> Path:
        """Where a Maven repository keeps the file."""
        return Path(*self.group.split("."), self.name, self.version, self.file_name)


class Source(Protocol):
    """Where artefacts come from."""

    def fetch(self, artifact: Artifact) -> Path:
        """Put the file at `Artifact.relative_path` under the repository folder and return its path."""
        ...


class MavenSource:
    """A Maven repository, read by jgo into the folder ``repository``."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._context: MavenContext | None = None

    def fetch(self, artifact: Artifact) -> Path:
        """Download one file.

        Raises:
            ClusterError: it cannot be had.
        """
        context = self._connected()
        component = context.project(artifact.group, artifact.name).at_version(artifact.version)
        try:
            return Path(component.artifact(artifact.classifier, artifact.packaging).resolve())
        except (OSError, RuntimeError) as e:  # requests' errors are OSErrors
            raise ClusterError(
                f"cannot download {artifact.coordinate}: {str(e).splitlines()[0]}",
                hint="check the network; a mirror goes into ~/.config/jgo.conf, section [repositories]",
            ) from e

    def _connected(self) -> "MavenContext":
        if self._context is None:
            from jgo.config import GlobalSettings
            from jgo.maven import MavenContext

            mirrors = GlobalSettings.load().repositories or None
            self._context = MavenContext(
                repo_cache=self._repository, remote_repos=mirrors, timeout=DOWNLOAD_TIMEOUT_SECONDS
            )
        return self._context


def read_lock(text: str | None = None) -> dict[str, tuple[Artifact, ...]]:
    """Return the locked artefacts of each group (``kafka``, ``cassandra``, ``registry``)."""
    if text is None:
        text = files("fluvial.cluster").joinpath("jars.lock").read_text()
    return {
        group: tuple(Artifact.parse(coordinate, sha256) for coordinate, sha256 in entries.items())
        for group, entries in tomllib.loads(text).items()
    }


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256, hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def resolve(
    artifacts: Sequence[Artifact], report: Report = silent, *, cache: Path | None = None, source: Source | None = None
) -> list[Path]:
    """Return the verified local files of ``artifacts``, in their order, fetching those that are missing or damaged.

    Raises:
        ClusterError: a file cannot be had, or what the repository serves has another checksum than the lock.
    """
    repository = (cache or cache_dir()) / "maven"
    repository.mkdir(parents=True, exist_ok=True)
    source = source or MavenSource(repository)
    with _locked(repository.parent / "download.lock"):
        missing = [a for a in artifacts if not _is_right(repository / a.relative_path, a)]
        if missing:
            _fetch_all(missing, repository, source, report)
    return [repository / a.relative_path for a in artifacts]


def unpack(
    artifact: Artifact, report: Report = silent, *, cache: Path | None = None, source: Source | None = None
) -> Path:
    """Return the folder that the verified ``tar.gz`` was unpacked into, once."""
    cache = cache or cache_dir()
    target = cache / "unpacked" / f"{artifact.name}-{artifact.version}-{artifact.sha256[:12]}"
    if target.is_dir():
        return target
    (archive,) = resolve([artifact], report, cache=cache, source=source)
    report(Step("jars", f"unpacking {artifact.file_name}"))
    with _locked(cache / "download.lock"):
        if not target.is_dir():
            partial = target.with_name(target.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            with tarfile.open(archive) as tar:
                tar.extractall(partial, filter="data")
            partial.rename(target)
            archive.unlink()
    return target


def _fetch_all(artifacts: Sequence[Artifact], repository: Path, source: Source, report: Report) -> None:
    total = len(artifacts)
    report(Step("jars", f"fetching {total} files", 0, total))
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        futures = {pool.submit(_fetch, a, repository, source): a for a in artifacts}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                report(
                    Step("jars", futures[future].file_name if done < total else f"{total} files fetched", done, total)
                )
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch(artifact: Artifact, repository: Path, source: Source) -> None:
    path = repository / artifact.relative_path
    path.unlink(missing_ok=True)
    source.fetch(artifact)
    if (found := sha256_of(path)) != artifact.sha256:
        path.unlink()
        raise ClusterError(
            f"{artifact.coordinate} has SHA-256 {found}, jars.lock says {artifact.sha256}",
            hint="the download was cut or altered: try again, or check the mirror",
        )


def _is_right(path: Path, artifact: Artifact) -> bool:
    return path.is_file() and sha256_of(path) == artifact.sha256


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep two commands that start at once from fetching the same files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield
