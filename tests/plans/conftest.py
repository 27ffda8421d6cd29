"""A bare RunEngine and what it emitted."""

from collections.abc import Iterator
from typing import Any

import pytest
from bluesky import RunEngine

from tests.engines import running_engine

Documents = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def RE() -> Iterator[RunEngine]:
    with running_engine(call_returns_result=False) as engine:
        yield engine


@pytest.fixture
def documents(RE: RunEngine) -> Documents:
    collected: Documents = []
    RE.subscribe(lambda name, document: collected.append((name, document)))
    return collected


def events(documents: Documents) -> list[dict[str, Any]]:
    """Give the data of the events of all streams."""
    return [document["data"] for name, document in documents if name == "event"]
