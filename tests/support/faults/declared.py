"""The pipelines of one trial: topics and tables of its own names, in the shapes of the shipped ones."""

from dataclasses import dataclass, replace
from pathlib import Path

from fluvial.schemas.catalog import Catalog
from fluvial.schemas.declarations import (
    MINUTE_MS,
    SECOND_MS,
    Declaration,
    Hopping,
    Pipeline,
    Session,
    Table,
)
from fluvial.schemas.tables import table_spec
from fluvial.stream_apps.shipped import (
    AUTHOR_SESSIONS,
    HASHTAG_COUNTS,
    HASHTAG_MINUTE,
    POSTS_BY_HASHTAG,
    SENSOR_MINUTE,
    TRENDING_HOUR,
)

FILE = "declaration.py"


@dataclass(frozen=True)
class Declared:
    """A trial's declaration, in a folder that the command line can read."""

    declaration: Declaration
    readings: str
    posts: str | None

    @property
    def catalog(self) -> Catalog:
        """The trial's topics and tables, without the shipped ones."""
        return Catalog([self.declaration])

    @property
    def pipelines(self) -> tuple[Pipeline, ...]:
        """What the worker and the sink run."""
        return self.declaration.pipelines

    @property
    def names(self) -> str:
        """The pipelines' names as ``worker.pipelines`` takes them."""
        return ",".join(p.name for p in self.pipelines)


def declare(name: str, folder: Path, *, posts: bool) -> Declared:
    """Write a declaration and its tables into the folder: three kinds of windows, and two rekeyed stages where asked."""
    readings = f"{name}.readings"
    minute = replace(SENSOR_MINUTE, source=readings, table=replace(SENSOR_MINUTE.table, name=f"{name}_minute"))
    hop = replace(
        minute,
        window=Hopping(5 * MINUTE_MS, MINUTE_MS),
        lateness_ms=30 * SECOND_MS,
        early_ms=MINUTE_MS,
        aggregates=("count", "sum", "mean", "first", "last"),
        table=Table(f"{name}_hop", ("sensor_id", "metric"), bucket="day"),
    )
    pipelines = [minute, hop]
    if posts:
        pipelines += _of_posts(name)
    declaration = Declaration(tuple(pipelines), schema_dir=folder)
    _write(declaration, folder)
    return Declared(declaration, readings, f"{name}.posts" if posts else None)


def _of_posts(name: str) -> list[Pipeline]:
    posts = f"{name}.posts"
    by_hashtag = replace(POSTS_BY_HASHTAG, source=posts, topic=f"{name}.by-hashtag")
    hashtags = replace(
        HASHTAG_MINUTE,
        source=by_hashtag.topic,
        upstream=(by_hashtag,),
        table=replace(HASHTAG_MINUTE.table, name=f"{name}_hashtag"),
    )
    counts = replace(HASHTAG_COUNTS, source=hashtags.result_topic, topic=f"{name}.counts")
    trending = replace(
        TRENDING_HOUR,
        source=counts.topic,
        upstream=(counts,),
        table=replace(TRENDING_HOUR.table, name=f"{name}_trending"),
    )
    sessions = replace(
        AUTHOR_SESSIONS,
        source=posts,
        window=Session(5 * MINUTE_MS),
        lateness_ms=MINUTE_MS,
        table=replace(AUTHOR_SESSIONS.table, name=f"{name}_sessions"),
    )
    return [hashtags, trending, sessions]


def _write(declaration: Declaration, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pipelines = ",\n    ".join(map(repr, declaration.pipelines))
    (folder / FILE).write_text(
        '"""The pipelines of a trial."""\n\nfrom pathlib import Path\n\nfrom fluvial.schemas.declarations import *\n\n'
        f"DECLARATION = Declaration(({pipelines},), schema_dir=Path({str(folder)!r}))\n"
    )
    catalog = Catalog([declaration])
    for i, pipeline in enumerate(declaration.pipelines, 1):
        spec = table_spec(pipeline, catalog.schema_of(pipeline.result_topic))
        columns = "".join(f"    {column} {kind},\n" for column, kind in spec.columns.items())
        clustering = ", ".join(column for column, _ in spec.clustering)
        order = ", ".join(f"{column} {way.upper()}" for column, way in spec.clustering)
        (folder / f"{i:03d}_{spec.name}.cql").write_text(
            f"CREATE TABLE IF NOT EXISTS {spec.name} (\n{columns}"
            f"    PRIMARY KEY (({', '.join(spec.partition_key)}), {clustering})\n"
            f") WITH CLUSTERING ORDER BY ({order})\n"
            "    AND compaction = {'class': 'UnifiedCompactionStrategy', 'scaling_parameters': 'T4'};\n"
        )
