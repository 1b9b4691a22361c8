"""Logging: structured, JSON when no person is looking, readable on a terminal. Logs go to stderr; stdout is for data."""

import logging
import sys
from typing import Literal

import structlog

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "text", "json"]

# Libraries that tell their own life at INFO; what matters of it is said by fluvial.
_CHATTY = (
    "faust",
    "mode",
    "aiokafka",
    "cassandra",
    "urllib3",
    "confluent_kafka",
    "numba",
    "asyncio",
    "jgo",
    "httpx2",
    "httpcore2",
    "httpx",
    "httpcore",
    "uvicorn",
    "grpc",
)


def set_up_logging(level: Level, fmt: Format) -> None:
    """Send every log record of the process through structlog to stderr."""
    as_json = fmt == "json" or (fmt == "auto" and not sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]
    renderer: structlog.typing.Processor
    if as_json:
        shared += [structlog.processors.format_exc_info]
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING if level != "debug" else logging.DEBUG)
    # Its timers warn when a checkpoint takes longer than their interval, which does no harm.
    logging.getLogger("mode.timers").setLevel(logging.ERROR)
    # Faust's services report each start and stop under the app's module.
    for name in (
        "fluvial.transport.app",
        "fluvial.transport.driver",
        "fluvial.transport.stream",
        "fluvial.transport.watchdog",
    ):
        logging.getLogger(name).setLevel(logging.WARNING if level != "debug" else logging.DEBUG)
