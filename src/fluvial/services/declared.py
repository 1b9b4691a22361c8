"""Loading declarations: the shipped ones and those that ``worker.declarations`` names."""

import importlib
import importlib.util
import sys
from pathlib import Path

from fluvial.errors import SettingsError
from fluvial.schemas.catalog import Catalog
from fluvial.schemas.declarations import Declaration
from fluvial.settings import WorkerSettings
from fluvial.stream_apps.shipped import DECLARATION


def load_catalog(settings: WorkerSettings) -> Catalog:
    """Return the shipped pipelines and those of every file or module named in ``worker.declarations``.

    Such a module has a `Declaration` named ``DECLARATION``.

    Raises:
        SettingsError: a module cannot be found or has no DECLARATION.
        PipelineError, SchemaError: a declaration is contradictory.
    """
    names = [n.strip() for n in settings.declarations.split(",") if n.strip()]
    return Catalog([DECLARATION, *(_load(n) for n in names)])


def _load(name: str) -> Declaration:
    hint = "worker.declarations lists Python files or importable modules, each with a DECLARATION"
    if name.endswith(".py") or "/" in name:
        path = Path(name)
        if not path.exists():
            raise SettingsError(f"declarations file {name} does not exist", hint=hint)
        spec = importlib.util.spec_from_file_location(f"fluvial_declared_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    else:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as e:
            raise SettingsError(f"declarations module {name}: {e}", hint=hint) from None
    declared = getattr(module, "DECLARATION", None)
    if not isinstance(declared, Declaration):
        raise SettingsError(f"{name} has no DECLARATION", hint=hint)
    return declared
