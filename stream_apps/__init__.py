"""Processors: event-time windows over whole record batches, exact through any restart.

``faust -A fluvial.stream_apps worker -l info`` runs them, as ``fluvial worker`` does.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "app":
        # The composition root, asked only when Faust's command line looks for the app.
        from fluvial.services.faust_app import worker_app

        return worker_app()
    raise AttributeError(name)
