"""Where writers' schemas come from, by id; the registry's client is in `fluvial.schemas.registry`."""

from collections.abc import Mapping
from typing import Any, Protocol

from fluvial.errors import FluvialError, SchemaError


class UnknownSchemaError(SchemaError):
    """The registry answered that it has no schema of this id."""


class RegistryUnavailableError(FluvialError):
    """The registry did not answer, or not sensibly: nobody can tell whether it has the schema. Ask again later."""


class SchemaSource(Protocol):
    """Schemas by id."""

    def by_id(self, schema_id: int) -> Any:
        """Return the Avro schema of an id as parsed JSON.

        Raises:
            UnknownSchemaError: there is no such schema; asking again will not help soon.
            RegistryUnavailableError: nobody could tell; ask again later.
        """
        ...


class SchemaMap:
    """A `SchemaSource` over a plain mapping, for tests and files."""

    def __init__(self, schemas: Mapping[int, Any]) -> None:
        self._schemas = dict(schemas)

    def by_id(self, schema_id: int) -> Any:
        """Return the schema of an id; see `SchemaSource.by_id`."""
        try:
            return self._schemas[schema_id]
        except KeyError:
            raise UnknownSchemaError(f"unknown schema id {schema_id}", hint="register the writer's schema") from None
