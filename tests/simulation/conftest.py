"""Which seeds are simulated: ``pytest tests/simulation --seed 1234``, or ``--seeds 5000`` fresh ones."""

import logging
from collections.abc import Iterator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="simulate this one, and tell its story")
    parser.addoption("--seeds", type=int, help="simulate so many fresh ones")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The product says in its log what goes wrong; here, that is most of what happens."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(before)
