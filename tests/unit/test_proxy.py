"""The faults' proxy: it forwards, and cuts, delays and resets when told to."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from support.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                return

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=answer, args=(connection,), daemon=True)
            thread.start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def proxy(echo: tuple[str, int]) -> Iterator[Proxy]:
    with Proxy(echo) as p:
        yield p


def connect(proxy: Proxy) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
    try:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
    except BaseException:
        client.close()
        raise
    return client


def test_everything_goes_through_in_order(proxy: Proxy) -> None:
    data = bytes(range(256)) * 4000
    with connect(proxy) as client:
        threading.Thread(target=client.sendall, args=(data,)).start()
        got = b""
        while len(got) < len(data):
            got += client.recv(65536)
    assert got == data


def test_a_cut_holds_everything_back_until_it_is_mended(proxy: Proxy) -> None:
    with connect(proxy) as client:
        proxy.cut()
        client.sendall(b"late")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(4)
        proxy.mend()
        client.settimeout(5)
        assert client.recv(4) == b"late"


def test_a_delay_is_added_to_each_answer(proxy: Proxy) -> None:
    with connect(proxy) as client:
        proxy.delay(0.2)
        begun = time.monotonic()
        client.sendall(b"ping")
        assert client.recv(4) == b"ping"
        assert 0.2 <= time.monotonic() - begun < 3


def test_a_reset_ends_connections_and_new_ones_work(proxy: Proxy) -> None:
    with connect(proxy) as client:
        proxy.reset()
        with pytest.raises(ConnectionError):
            assert client.recv(1) != b""
    connect(proxy).close()


def test_a_half_closed_connection_ends_for_its_reader(proxy: Proxy) -> None:
    with connect(proxy) as client:
        proxy.half_close()
        assert client.recv(1) == b""


def test_who_is_refused_is_reset_until_it_is_mended(proxy: Proxy) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionError):
        connect(proxy)
    proxy.mend()
    connect(proxy).close()
