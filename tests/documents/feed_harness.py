"""Documents on a real Redis, and a callback that is fed from them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import event_model

from bec_bluesky.bus import Bus
from bec_bluesky.channels import ALARMS, DOCUMENTS, RUNS
from bec_bluesky.documents import RunCallback
from bec_bluesky.documents._feed import Feed
from bec_bluesky.documents._publish import Publisher
from bec_bluesky.messages import pack
from bec_bluesky.messages.common import Alarm
from bec_bluesky.messages.products import RunClosed, RunOpened

__all__ = ["feeding", "publish", "run_documents", "until"]


def run_documents(events: int) -> list[tuple[str, dict[str, Any]]]:
    """Compose a small valid run."""
    run = event_model.compose_run(metadata={"scan_id": 7})
    stream = run.compose_descriptor(
        name="primary", data_keys={"det": {"source": "test", "dtype": "number", "shape": []}}
    )
    documents: list[tuple[str, Any]] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    for number in range(1, events + 1):
        event = stream.compose_event(data={"det": float(number)}, timestamps={"det": 1.0}, seq_num=number)
        documents.append(("event", event))
    documents.append(("stop", run.compose_stop()))
    return documents


async def publish(bus: Bus, documents: list[tuple[str, dict[str, Any]]], *, first: int = 1) -> str:
    uid = documents[0][1]["uid"] if first == 1 else documents[-1][1].get("run_start", "")
    if first == 1:
        await bus.append(RUNS, RunOpened(run_uid=uid, scan_id=7, time=1.0))
    for number, (name, doc) in enumerate(documents, first):
        await bus.redis.xadd(bus.key(DOCUMENTS, run=uid), {"n": name, "d": pack(doc)}, id=f"{number}-0")
    if documents[-1][0] == "stop":
        await bus.append(RUNS, RunClosed(run_uid=uid, time=2.0, exit_status="success", documents=len(documents)))
    return uid


@contextlib.asynccontextmanager
async def feeding(bus: Bus, callback: RunCallback, name: str = "collector", **options: Any) -> AsyncIterator[Feed]:
    """Feed one callback, required as the only one unless `options` say otherwise, while the block lasts."""

    async def alarm(text: str, **extra: Any) -> None:
        await bus.append(ALARMS, Alarm(time=1.0, service=name, text=text, run=extra.get("run")))

    publisher = Publisher(bus, asyncio.get_running_loop(), alarm)
    callback.emit = publisher.emit
    feed = Feed(name, callback, bus, publisher, alarm=alarm, **{"required": frozenset({name})} | options)
    task = asyncio.create_task(feed.run())
    try:
        yield feed
    finally:
        await feed.finish()
        await task


async def until(condition: Callable[[], Any], timeout: float = 10.0) -> None:
    async with asyncio.timeout(timeout):
        while True:
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.01)
