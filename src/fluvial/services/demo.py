"""The demo's real data: fetched once like the servers' jars, verified, and put beside the demo's cluster."""

import zipfile
from importlib.resources import files
from pathlib import Path

from fluvial.cluster.artifacts import read_lock, resolve
from fluvial.cluster.progress import Report, silent

_ENTRY = "wikipedia/wikiticker-2015-09-12-sampled.json.gz"


def wikipedia_edits(folder: Path, report: Report = silent) -> Path:
    """Return the file of 39,244 real Wikipedia edits (NDJSON, gzip) in ``folder``.

    Raises:
        ClusterError: the archive cannot be had, or has another checksum.
    """
    lock = files("fluvial.services").joinpath("demo.lock").read_text()
    (archive,) = resolve(read_lock(lock)["wikipedia"], report)
    target = folder / "wikipedia-edits.ndjson.gz"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive) as z:
        target.write_bytes(z.read(_ENTRY))
    return target
