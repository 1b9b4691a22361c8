"""The pipelines that come with fluvial. Each is a declaration; docs/tutorial shows how to add one."""

from fluvial.schemas.declarations import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    SECOND_MS,
    Declaration,
    Pipeline,
    Rekey,
    Session,
    Table,
    Tumbling,
)

READING = "fluvial.iot.SensorReading"
POST = "fluvial.social.SocialPost"
NUMERIC = ("count", "sum", "mean", "min", "max", "first", "last", "stddev", "p50", "p95", "p99")

SENSOR_MINUTE = Pipeline(
    source="iot.readings",
    event=READING,
    key=("sensor_id", "metric"),
    window=Tumbling(MINUTE_MS),
    lateness_ms=MINUTE_MS,
    early_ms=20 * SECOND_MS,
    identity=("sequence", "value"),
    value="value",
    aggregates=NUMERIC,
    table=Table("sensor_minute", ("sensor_id", "metric"), bucket="day"),
)

SENSOR_HOUR = Pipeline(
    source="iot.readings",
    event=READING,
    key=("sensor_id", "metric"),
    window=Tumbling(HOUR_MS),
    lateness_ms=MINUTE_MS,
    early_ms=5 * MINUTE_MS,
    identity=("sequence", "value"),
    value="value",
    aggregates=NUMERIC,
    table=Table("sensor_hour", ("sensor_id", "metric"), bucket="month"),
)

POSTS_BY_NETWORK = Rekey(
    source="social.posts",
    topic="fluvial.posts-by-network",
    event="fluvial.social.NetworkPost",
    fields=("network", "author_id", "post_id", "event_time"),
    key=("network",),
)

NETWORK_MINUTE = Pipeline(
    source=POSTS_BY_NETWORK.topic,
    event=POSTS_BY_NETWORK.event,
    upstream=(POSTS_BY_NETWORK,),
    key=("network",),
    window=Tumbling(MINUTE_MS),
    time="partition",
    identity=("post_id",),
    identity_has_time=False,
    distinct="author_id",
    aggregates=("count", "distinct"),
    table=Table("network_minute", ("network",), bucket="day"),
)

POSTS_BY_HASHTAG = Rekey(
    source="social.posts",
    topic="fluvial.posts-by-hashtag",
    event="fluvial.social.HashtagPost",
    fields=("network", "author_id", "post_id", "event_time"),
    explode="hashtags",
    explode_as="hashtag",
    key=("network", "hashtag"),
)

HASHTAG_MINUTE = Pipeline(
    source=POSTS_BY_HASHTAG.topic,
    event=POSTS_BY_HASHTAG.event,
    upstream=(POSTS_BY_HASHTAG,),
    key=("network", "hashtag"),
    window=Tumbling(MINUTE_MS),
    time="partition",
    identity=("post_id",),
    identity_has_time=False,
    distinct="author_id",
    aggregates=("count", "distinct"),
    table=Table("hashtag_minute", ("network", "hashtag"), bucket="day"),
)

HASHTAG_COUNTS = Rekey(
    source=HASHTAG_MINUTE.result_topic,
    topic="fluvial.hashtag-counts",
    event="fluvial.social.HashtagCount",
    fields=("network", "hashtag", "window_start", "count"),
    key=("network",),
)

TRENDING_HOUR = Pipeline(
    source=HASHTAG_COUNTS.topic,
    event=HASHTAG_COUNTS.event,
    upstream=(HASHTAG_COUNTS,),
    key=("network",),
    event_time="window_start",
    window=Tumbling(HOUR_MS),
    time="partition",
    # Upstream partitions announce how far their counts are final, so none can be late.
    lateness_ms=0,
    early_ms=MINUTE_MS,
    # A row that a restarted stage forwards again is known by its hashtag and minute.
    identity=("hashtag",),
    value="count",
    top="hashtag",
    top_k=20,
    aggregates=("sum", "top"),
    table=Table("trending_hour", ("network",), bucket="month"),
)

AUTHOR_SESSIONS = Pipeline(
    source="social.posts",
    event=POST,
    key=("author_id",),
    window=Session(30 * MINUTE_MS),
    time="partition",
    lateness_ms=5 * MINUTE_MS,
    idle_timeout_ms=DAY_MS,
    early_ms=0,
    identity=("post_id",),
    identity_has_time=False,
    aggregates=("count",),
    table=Table("author_sessions", ("author_id",), bucket="month"),
)

DECLARATION = Declaration(
    pipelines=(SENSOR_MINUTE, SENSOR_HOUR, NETWORK_MINUTE, HASHTAG_MINUTE, TRENDING_HOUR, AUTHOR_SESSIONS)
)
