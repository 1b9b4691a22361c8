"""As much of cassandra-driver's session as the sink asks for, on a `FakeCassandra`."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from support.simulated.cassandra import FakeCassandra, TableOf
from support.simulated.loop import Process


class _Answer:
    def __init__(self) -> None:
        self._error: BaseException | None = None
        self._done = False
        self._calls: tuple[Callable[[Any], None], Callable[[BaseException], None]] | None = None

    def add_callbacks(self, callback: Callable[[Any], None], errback: Callable[[BaseException], None]) -> None:
        self._calls = callback, errback
        if self._done:
            self.set(self._error)

    def set(self, error: BaseException | None) -> None:
        self._done, self._error = True, error
        if self._calls is not None:
            callback, errback = self._calls
            if error is None:
                callback(None)
            else:
                errback(error)


class FakeSession:
    """As much of a driver's session as the sink asks for."""

    def __init__(self, cassandra: FakeCassandra, process: Process, keyspace: str) -> None:
        self._cassandra = cassandra
        self._process = process
        self.client_protocol_handler: Any = None
        self.cluster = SimpleNamespace(metadata=_Metadata(cassandra, keyspace), shutdown=lambda: None)

    def prepare(self, query: str) -> Any:
        return SimpleNamespace(query_id=self._cassandra.prepare(query))

    def execute_async(self, statement: Any, timeout: float) -> _Answer:
        answer = _Answer()
        rows = statement._statements_and_parameters
        self._cassandra.write(self._process, bytes(rows.body), timeout, answer.set)
        return answer


class _Metadata:
    def __init__(self, cassandra: FakeCassandra, keyspace: str) -> None:
        def described(table: TableOf) -> Any:
            columns = {n: SimpleNamespace(name=n, cql_type=kind) for n, kind in table.columns.items()}
            return SimpleNamespace(
                columns=columns,
                partition_key=[columns[n] for n in table.partition_key],
                clustering_key=[columns[n] for n in table.clustering],
            )

        tables = {name: described(t) for name, t in cassandra.tables.items()}
        self.keyspaces = {keyspace: SimpleNamespace(tables=tables)}

    def all_hosts(self) -> list[str]:
        return ["node1", "node2", "node3"]

    def get_replicas(self, keyspace: str, key: bytes) -> list[Any]:
        return [SimpleNamespace(endpoint=name) for name in self.all_hosts()]
