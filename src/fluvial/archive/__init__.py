"""The log's raw records as Parquet files: written by ``fluvial archive``, read by replays and by whoever reads Parquet.

Import `fluvial.archive.reader` and `fluvial.archive.writer`; `fluvial.archive.layout` has the names of files.
"""
