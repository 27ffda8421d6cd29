"""The history of bluesky-queueserver's clients, on a real Redis: whole, cleared, and light in memory."""

import json
import math
from typing import Any

import msgpack
import msgspec

from bec_bluesky.bus import Bus
from bec_bluesky.channels import ITEMS_DONE
from bec_bluesky.messages.queue import ItemDone, ItemResult, QueueItem
from bec_bluesky.queueserver._encoding import json_text, packed
from bec_bluesky.queueserver._shown_history import ShownHistory
from bec_bluesky.queueserver.web._bodies import as_json


async def end(bus: Bus, *names: str, **facts: Any) -> None:
    result = ItemResult(exit_status="completed")
    items = [QueueItem(item_id=name, plan="count", state="done", result=result, **facts) for name in names]
    for first in range(0, len(items), 1000):
        await bus.append_all(ITEMS_DONE, [ItemDone(item=item) for item in items[first : first + 1000]])


async def shown(history: ShownHistory) -> list[str]:
    items, state = await history.items()
    assert state == history.state
    names = [item["item_uid"] for item in items.plain()]
    assert len(names) == history.size
    return names


async def loaded(bus: Bus) -> ShownHistory:
    history = ShownHistory(bus)
    await history.load()
    return history


async def test_a_long_history_is_given_whole_and_grows(bus: Bus) -> None:
    names = [f"i{number}" for number in range(2_345)]
    await end(bus, *names)
    history = await loaded(bus)
    assert history.size == 2_345
    assert await shown(history) == names
    await end(bus, "new")
    before = history.state
    await history.look()
    assert history.state != before
    assert await shown(history) == [*names, "new"]


async def test_it_is_cleared_by_number_by_item_and_wholly_also_after_a_restart(bus: Bus) -> None:
    names = [f"i{number}" for number in range(1_300)]
    await end(bus, *names)
    history = await loaded(bus)
    assert await history.hide(size=1_200)
    assert await shown(history) == names[-1_200:]
    assert not await history.hide(size=1_200)
    assert await history.hide(item_uid="i1296")
    assert await shown(history) == names[-3:] == await shown(await loaded(bus))
    assert not await history.hide(item_uid="i5"), "it is not shown any more"
    assert await history.hide()
    assert await shown(history) == []
    await end(bus, "new")
    assert await shown(history) == ["new"] == await shown(await loaded(bus))


async def test_another_history_on_redis_is_noticed(bus: Bus) -> None:
    await end(bus, "a", "b")
    history = await loaded(bus)
    await history.hide()
    await bus.redis.delete(bus.key(ITEMS_DONE))
    await bus.redis.xadd(bus.key(ITEMS_DONE), {"m": b"\xc1 not ours"}, id="5-1")
    assert (await history.items())[0].plain() == []


async def test_what_is_no_number_and_other_letters_arrive_on_each_transport(bus: Bus) -> None:
    await end(bus, "a", kwargs={"limit": math.nan, "Ångström": "µm\n"})
    items, _ = await (await loaded(bus)).items()
    reply: dict[str, Any] = {"success": True, "items": items}
    (by_zmq,) = json.loads(json_text(reply))["items"]
    assert math.isnan(by_zmq["kwargs"].pop("limit"))
    assert by_zmq["kwargs"] == {"Ångström": "µm\n"}
    (by_msgpack,) = msgpack.unpackb(packed(reply))["items"]
    assert by_msgpack["kwargs"]["Ångström"] == "µm\n"
    (by_http,) = msgspec.json.decode(as_json(reply))["items"]
    assert by_http["kwargs"] == {"limit": None, "Ångström": "µm\n"}
    assert json.loads(json_text({"success": True})) == {"success": True}
    assert json.loads(json_text({"items": items}))["items"][0]["name"] == "count"
