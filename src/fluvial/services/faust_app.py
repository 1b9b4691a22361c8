"""What ``faust -A fluvial.stream_apps worker`` finds: the worker's Faust app, built from the settings in use."""

from functools import cache

from fluvial.logs import set_up_logging
from fluvial.schemas.registry import Registry
from fluvial.services.declared import load_catalog
from fluvial.services.processors import build_worker
from fluvial.settings import load_settings
from fluvial.transport.app import BatchApp


@cache
def worker_app() -> BatchApp:
    """Return the app of the processors; asks Kafka and the registry."""
    settings = load_settings()
    set_up_logging(settings.log_level, settings.log_format)
    return build_worker(settings, load_catalog(settings.worker), Registry(settings.registry)).app
