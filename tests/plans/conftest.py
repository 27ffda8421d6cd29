"""A bare RunEngine and what it emitted."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from bluesky import RunEngine

Documents = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def RE() -> Iterator[RunEngine]:
    loop = asyncio.new_event_loop()
    engine = RunEngine(loop=loop, context_managers=[])
    yield engine
    loop.call_soon_threadsafe(loop.stop)
    engine._th.join(5.0)
    loop.close()


@pytest.fixture
def documents(RE: RunEngine) -> Documents:
    collected: Documents = []
    RE.subscribe(lambda name, document: collected.append((name, document)))
    return collected


def events(documents: Documents) -> list[dict[str, Any]]:
    """Give the data of the events of all streams."""
    return [document["data"] for name, document in documents if name == "event"]
