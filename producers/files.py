"""Which reader opens a file."""

from pathlib import Path
from typing import Literal

from fluvial.producers.chunks import ImportFileError, Source
from fluvial.producers.csv_file import CsvFile
from fluvial.producers.ndjson_file import NdjsonFile
from fluvial.producers.parquet_file import ParquetFile

Format = Literal["csv", "ndjson", "parquet"]
_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def open_source(path: Path, kind: Format | None = None, delimiter: str | None = None) -> Source:
    """Open a file by its suffix (``.gz`` aside), or as the given format.

    Raises:
        ImportFileError: it does not exist, its suffix says nothing, or it is not of its format.
    """
    if not path.is_file():
        raise ImportFileError(f"{path} does not exist or is not a file", hint="check the path")
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    kind = kind or _SUFFIXES.get(suffix)
    if kind == "csv":
        return CsvFile(path, delimiter or ("\t" if suffix == ".tsv" else ","))
    if kind == "ndjson":
        return NdjsonFile(path)
    if kind == "parquet":
        return ParquetFile(path)
    known = ", ".join(_SUFFIXES)
    raise ImportFileError(f"{path}: what format is it? The known suffixes are {known}", hint="say --format")
