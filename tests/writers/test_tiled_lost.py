"""Runs that the catalogue has without a stop document, since their documents were lost while nobody wrote them."""

from collections.abc import Iterator
from typing import Any

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import ALARMS, FILES, STORED
from bec_bluesky.documents import CatalogAddress, Runs, find_catalog, open_catalog
from bec_bluesky.documents._lost import LOST
from bec_bluesky.settings import Settings
from bec_bluesky.testing import running_api
from tests.documents.feed_harness import feeding, publish, run_documents, until
from tests.live_system import until as until_sync
from writers.tiled import TiledWriter

SOON = 0.3
"""Seconds for which documents must be gone, here."""
OWNER = "here:tiled"
Documents = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def runs(served: Settings, address: CatalogAddress) -> Iterator[Runs]:
    runs = Runs(open_catalog(served, address), address, served)
    yield runs
    runs.close()


def owned(address: CatalogAddress | None, owner: str = OWNER) -> TiledWriter:
    """Make a writer of an owner; without an address it looks for the server of the settings."""
    writer = TiledWriter(*((address.uri, address.api_key) if address else ()), flush_every=0.02, patience=60.0)
    writer.owner = owner
    return writer


def left_open(address: CatalogAddress, owner: str = OWNER) -> Documents:
    """Have a writer end in mid-run; give all documents of the run."""
    documents = run_documents(4)
    writer = owned(address, owner)
    for name, doc in documents[:5]:
        writer(name, doc)
    writer.close()
    return documents


def stop_of(runs: Runs, uid: str) -> dict[str, Any]:
    return runs.catalog[uid].metadata.get("stop") or {}


async def test_a_run_whose_documents_were_lost_meanwhile_is_closed_by_the_next_start(
    bus: Bus, runs: Runs, address: CatalogAddress
) -> None:
    documents = left_open(address)
    uid = documents[0][1]["uid"]
    assert uid in {run.uid for run in runs.search(status="open")}
    assert runs[uid].exit_status == "open"
    async with feeding(bus, owned(address), "tiled", lost_after=SOON):
        await until(lambda: stop_of(runs, uid), 60.0)
        await until(lambda: bus.read(FILES), 60.0)
        stop = stop_of(runs, uid)
        assert (stop["exit_status"], stop["reason"], stop["run_start"]) == ("fail", LOST, uid)
        assert stop["time"] == documents[4][1]["time"]
        assert uid not in {run.uid for run in runs.search(status="open")}
        assert runs[uid].table()["det"].tolist() == [1.0, 2.0, 3.0]
        texts = [alarm.text for _, alarm in await bus.newest(ALARMS, 10)]
        assert any("tiled has closed it with what it had of it" in text for text in texts)
        (ready,) = [message for _, message in await bus.read(FILES)]
        assert (ready.run_uid, ready.scan_id, ready.kind) == (uid, 7, "catalogue")
        await publish(bus, documents)  # its worker had kept them
        await until(lambda: bus.field(STORED, "tiled", run=uid), 60.0)
    assert stop_of(runs, uid)["exit_status"] == "success"
    assert runs[uid].table()["det"].tolist() == [1.0, 2.0, 3.0, 4.0]


async def test_runs_of_others_and_runs_whose_documents_are_there_are_not_closed(
    bus: Bus, runs: Runs, address: CatalogAddress
) -> None:
    theirs = [left_open(address, owner)[0][1]["uid"] for owner in ("there:tiled", "")]
    kept, lost = left_open(address), left_open(address)
    await publish(bus, kept[:5])
    async with feeding(bus, owned(address), "tiled", lost_after=SOON):
        await until(lambda: stop_of(runs, lost[0][1]["uid"]), 60.0)
        await until(lambda: len(runs[kept[0][1]["uid"]].table()) == 3, 60.0)
    for uid in (*theirs, kept[0][1]["uid"]):
        assert runs[uid].exit_status == "open"


def test_a_writer_asks_for_unfinished_runs_when_the_server_answers(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    with running_api(settings):
        address = find_catalog(settings)
        assert address is not None
        uid = left_open(address)[0][1]["uid"]
    writer = owned(None)
    assert writer.unfinished() == []
    with running_api(settings):
        until_sync(lambda: writer.unfinished() == [uid], "it was not asked")
    writer.close()
