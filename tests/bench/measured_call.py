"""Run a function that measures itself, print what it returns: ``measured_call.py MODULE FUNCTION SETTINGS``."""

import json
import sys
from dataclasses import asdict
from importlib import import_module

from processes import peak_mb

from fluvial.settings import Settings

# Which part of the settings each module's functions take.
SECTIONS = {"sink": "cassandra"}


def main(module: str, function: str, settings: str) -> None:
    """Call it, and take the peak memory as it is taken of all others."""
    parsed = Settings.model_validate_json(settings)
    section = SECTIONS.get(module)
    measured = getattr(import_module(module), function)(getattr(parsed, section) if section else parsed)
    print(json.dumps({**asdict(measured), "peak_mb": peak_mb("self")}))


if __name__ == "__main__":
    main(*sys.argv[1:])
