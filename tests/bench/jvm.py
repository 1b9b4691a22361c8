"""The Java peers: compiled on the spot with ecj, run by the Java that runs the servers."""

import subprocess
from pathlib import Path

import jars

from fluvial.cluster.java import find_java

SOURCES = Path(__file__).resolve().with_name("java")
SHARED = ("Progress.java", "Reading.java")
JAVA_RELEASE = "17"
HEAP = "-Xmx2g"
# Flink's closure cleaner and its old Kryo look into these.
OPENED = (
    "java.base/java.util",
    "java.base/java.lang",
    "java.base/java.util.concurrent",
    "java.base/java.time",
    "java.base/java.nio",
)


class CompilationError(Exception):
    """A peer's Java program does not compile; the message is the compiler's."""


def command(peer: str, main_class: str, build: Path) -> list[str]:
    """Compile a peer into ``build`` and return the start of its command line.

    Raises:
        CompilationError: its source is wrong.
        ClusterError: its jars or the compiler cannot be had.
    """
    java = str(find_java())
    classpath = ":".join(str(jar) for jar in jars.jars_of(peer))
    classes = build / peer
    sources = [str(SOURCES / name) for name in (*SHARED, f"{main_class}.java")]
    compiler = [java, "-jar", str(jars.compiler_jar()), f"-{JAVA_RELEASE}", "-nowarn", "-proc:none"]
    done = subprocess.run(
        [*compiler, "-cp", classpath, "-d", str(classes), *sources], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise CompilationError(done.stderr or done.stdout)
    opened = [flag for package in OPENED for flag in ("--add-opens", f"{package}=ALL-UNNAMED")]
    return [java, HEAP, *opened, "-cp", f"{classes}:{classpath}", main_class]
