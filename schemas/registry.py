"""The schema registry (Confluent's API): schemas by id, ids by schema, subjects and their compatibility."""

import json
import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from fluvial.errors import SchemaError
from fluvial.schemas.sources import RegistryUnavailableError, UnknownSchemaError
from fluvial.settings import RegistrySettings

COMPATIBILITY = "BACKWARD_TRANSITIVE"
# Confluent's codes: subject, version, schema not found; no compatibility configured for the subject.
_SUBJECT_NOT_FOUND, _SCHEMA_NOT_FOUND, _NO_CONFIG = 40401, 40403, 40408
_INCOMPATIBLE = frozenset({409, 40901})
_MAX_ID = (1 << 31) - 1


class Registry:
    """A client of the registry, and a `SchemaSource`. Safe to share between threads.

    Known schemas are kept for ever (an id's schema never changes); an unknown id is asked for again after
    ``unknown_seconds``, so that a stream of made-up ids does not become a stream of requests.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        *,
        timeout_seconds: float = 5.0,
        retries: int = 3,
        unknown_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        config: dict[str, Any] = {
            "url": settings.url,
            "timeout": timeout_seconds,
            "max.retries": retries,
            "retries.wait.ms": 200,
            "retries.max.wait.ms": 2000,
        }
        if settings.username is not None:
            password = settings.password.get_secret_value() if settings.password else ""
            config["basic.auth.user.info"] = f"{settings.username}:{password}"
        self._url = settings.url
        self._client = SchemaRegistryClient(config)
        self._unknown_seconds = unknown_seconds
        self._clock = clock
        self._lock = Lock()
        self._known: dict[int, Any] = {}
        self._unknown: dict[int, float] = {}

    def by_id(self, schema_id: int) -> Any:
        """Return the Avro schema of an id as parsed JSON, its references inlined.

        Raises:
            UnknownSchemaError: the registry has no such schema.
            SchemaError: the schema is not Avro.
            RegistryUnavailableError: the registry does not answer, refuses us or answers nonsense.
        """
        with self._lock:
            if schema_id in self._known:
                return self._known[schema_id]
            asked = self._unknown.get(schema_id)
            if asked is not None and self._clock() - asked < self._unknown_seconds:
                raise self._no_schema(schema_id)
        if schema_id > _MAX_ID:
            raise self._no_schema(schema_id)
        try:
            found = self._ask(f"schema id {schema_id}", self._client.get_schema, schema_id)
        except SchemaRegistryError as e:
            if e.error_code != _SCHEMA_NOT_FOUND:
                raise self._unavailable(f"schema id {schema_id}", e) from e
            self._require_subjects(schema_id)
            with self._lock:
                self._unknown = {i: t for i, t in self._unknown.items() if self._clock() - t < self._unknown_seconds}
                self._unknown[schema_id] = self._clock()
            raise self._no_schema(schema_id) from None
        schema = self._parsed(found, f"schema id {schema_id}", {})
        with self._lock:
            self._known[schema_id] = schema
        return schema

    def schema_id(self, subject: str, schema: Mapping[str, Any]) -> int:
        """Return the id of a schema that is registered under a subject.

        Raises:
            SchemaError: it is not registered there.
            RegistryUnavailableError: see `by_id`.
        """
        found = self.registered_id(subject, schema)
        if found is None:
            raise SchemaError(
                f"the registry at {self._url} does not have subject {subject} in this form", hint="run `fluvial init`"
            )
        return found

    def registered_id(self, subject: str, schema: Mapping[str, Any]) -> int | None:
        """Return the id of a schema under a subject, None when it is not registered there.

        Raises:
            RegistryUnavailableError: see `by_id`.
        """
        try:
            return int(self._ask(f"subject {subject}", self._client.lookup_schema, subject, _wire(schema)).schema_id)
        except SchemaRegistryError as e:
            if e.error_code in (_SUBJECT_NOT_FOUND, _SCHEMA_NOT_FOUND):
                return None
            raise self._unavailable(f"subject {subject}", e) from e

    def register(self, subject: str, schema: Mapping[str, Any]) -> int:
        """Register a schema under a subject whose compatibility is set to BACKWARD_TRANSITIVE before; return its id.

        Raises:
            SchemaError: it is incompatible with an earlier version, or refused as invalid.
            RegistryUnavailableError: see `by_id`.
        """
        try:
            if self.compatibility(subject) is None:
                self.set_compatibility(subject)
            return int(self._ask(f"subject {subject}", self._client.register_schema, subject, _wire(schema)))
        except SchemaRegistryError as e:
            if e.error_code in _INCOMPATIBLE or e.http_status_code == 409:
                raise SchemaError(
                    f"subject {subject}: the schema is incompatible with a registered version: {e.error_message}",
                    hint="give new fields a default, or use a new subject",
                ) from None
            if e.http_status_code == 422:
                raise SchemaError(f"subject {subject}: {e.error_message}", hint="correct the schema") from None
            raise self._unavailable(f"subject {subject}", e) from e

    def compatibility(self, subject: str) -> str | None:
        """Return the compatibility set for a subject itself, None where only the registry's default holds.

        Raises:
            RegistryUnavailableError: see `by_id`.
        """
        try:
            return str(self._ask(f"subject {subject}", self._client.get_compatibility, subject))
        except SchemaRegistryError as e:
            if e.http_status_code == 404 and e.error_code in (_SUBJECT_NOT_FOUND, _NO_CONFIG):
                return None
            raise self._unavailable(f"subject {subject}", e) from e

    def set_compatibility(self, subject: str) -> None:
        """Set a subject's compatibility to BACKWARD_TRANSITIVE.

        Raises:
            RegistryUnavailableError: see `by_id`.
        """
        try:
            self._ask(f"subject {subject}", self._client.set_compatibility, subject, COMPATIBILITY)
        except SchemaRegistryError as e:
            raise self._unavailable(f"subject {subject}", e) from e

    def subjects(self) -> list[str]:
        """Return the names of all subjects, sorted.

        Raises:
            RegistryUnavailableError: see `by_id`.
        """
        try:
            return sorted(self._ask("its subjects", self._client.get_subjects))
        except SchemaRegistryError as e:
            raise self._unavailable("its subjects", e) from e

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> "Registry":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_subjects(self, schema_id: int) -> None:
        """Refuse to call an id unknown by a registry without subjects: it is still loading them, or the wrong one."""
        what = f"schema id {schema_id}"
        try:
            subjects = self._ask(what, self._client.get_subjects)
        except SchemaRegistryError as e:
            raise self._unavailable(what, e) from e
        if not subjects:
            raise self._unavailable(what, LookupError("it has no subjects, so it may still be loading them"))

    def _ask(self, what: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call the client; its own errors are the registry's answers, all others mean that there was none."""
        try:
            return call(*arguments)
        except SchemaRegistryError:
            raise
        except Exception as e:
            raise self._unavailable(what, e) from e

    def _parsed(self, found: Schema, what: str, definitions: dict[str, Any]) -> Any:
        if (found.schema_type or "AVRO") != "AVRO":
            raise SchemaError(f"{what} is {found.schema_type}", hint="fluvial reads Avro")
        for reference in found.references or ():
            if reference.name in definitions:
                continue
            wanted = f"{what}'s reference {reference.name}"
            try:
                version = self._ask(wanted, self._client.get_version, reference.subject, reference.version)
            except SchemaRegistryError as e:
                raise self._unavailable(wanted, e) from e
            definitions[reference.name] = None
            definitions[reference.name] = self._parsed(version.schema, reference.name, definitions)
        try:
            parsed = json.loads(found.schema_str)
        except (ValueError, RecursionError) as e:
            raise SchemaError(f"{what} cannot be parsed: {e}", hint="register it anew") from None
        return _inlined(parsed, dict(definitions)) if definitions else parsed

    def _no_schema(self, schema_id: int) -> UnknownSchemaError:
        return UnknownSchemaError(
            f"unknown schema id {schema_id}", hint=f"the registry at {self._url} does not have it"
        )

    def _unavailable(self, what: str, cause: Exception) -> RegistryUnavailableError:
        return RegistryUnavailableError(
            f"the registry at {self._url} gives no answer about {what}: {cause or type(cause).__name__}",
            hint="see that it runs, and that registry.url, username and password are right",
        )


def _wire(schema: Mapping[str, Any]) -> Schema:
    return Schema(json.dumps(schema), "AVRO")


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    """Put each referenced definition where its full name first occurs."""
    if isinstance(node, str):
        definition = definitions.pop(node, None)
        return node if definition is None else _inlined(definition, definitions)
    if isinstance(node, list):
        return [_inlined(n, definitions) for n in node]
    if not isinstance(node, dict):
        return node
    out = dict(node)
    if isinstance(node.get("fields"), list):
        out["fields"] = [{**f, "type": _inlined(f["type"], definitions)} for f in node["fields"]]
    for key in ("type", "items", "values"):
        if key in node and not (key == "type" and node[key] in ("record", "enum", "fixed", "array", "map")):
            out[key] = _inlined(node[key], definitions)
    return out
