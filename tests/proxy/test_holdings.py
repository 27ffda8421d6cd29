"""Two links that want the same devices, on a real server."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given, settings, strategies

from bec_bluesky.channels import DEVICE_HOLDERS
from bec_bluesky.errors import DeviceHeld, UnknownDeviceError
from bec_bluesky.proxy import DeviceLink, Holding
from bec_bluesky.proxy._connection import Connection
from bec_bluesky.settings import Settings
from tests.proxy.conftest import DEADLINE, Bench, Server, linked, remote_bench, running_server, wait_for

DEVICES = ("motor", "motor2", "temperature", "slow")
Step = tuple[int, str, tuple[str, ...]]


def call(link: DeviceLink, coroutine: Any) -> Any:
    return asyncio.run_coroutine_threadsafe(coroutine, link.loop).result(DEADLINE)


async def change(link: DeviceLink, path: str, value: float = 0.0) -> None:
    await link.request(path, "set", value)


@pytest.fixture(scope="module")
def links(server: Server, remote: Bench) -> Iterator[tuple[DeviceLink, DeviceLink]]:
    """Two links in one loop."""
    with linked(remote.RE, server.settings) as one, linked(remote.RE, server.settings) as other:
        for link in (one, other):
            server.wait_until_heard(link)
        yield one, other


def test_what_one_link_holds_the_other_may_look_at_and_stop(links: tuple[DeviceLink, DeviceLink]) -> None:
    one, other = links

    async def scenario() -> None:
        async with one.holding(["slow.velocity"], "anna", user="anna"):
            await change(one, "slow.velocity", 1.0)
            for path in ("slow", "slow.velocity"):
                with pytest.raises(DeviceHeld, match=r"^slow is held by anna: it is free when they let go of it"):
                    await change(other, path, 0.5)
            await other.request("slow", "read")
            await other.devices["slow"].stop()
        await change(other, "slow.velocity", 2.0)
        assert (one.operations.token, other.operations.token) == ("", "")

    call(one, scenario())


def test_holdings_of_one_link_lie_within_each_other(links: tuple[DeviceLink, DeviceLink]) -> None:
    one, other = links

    async def scenario() -> None:
        async with one.holding(["motor"], "anna"):
            async with one.holding(["motor", "motor2"], "anna"):
                await change(one, "temperature")
                for path in ("motor", "motor2", "temperature"):
                    with pytest.raises(DeviceHeld):
                        await change(other, path)
            await change(other, "motor2")
            with pytest.raises(DeviceHeld, match="motor is held"):
                await change(other, "motor")
        for path in ("motor", "temperature"):
            await change(other, path)

    call(one, scenario())


def test_a_refused_holding_holds_nothing(links: tuple[DeviceLink, DeviceLink]) -> None:
    one, other = links

    async def scenario() -> None:
        async with one.holding(["motor"], "anna"):
            with pytest.raises(DeviceHeld, match="motor is held by anna"):
                async with other.holding(["motor2", "motor"], "eve"):
                    pass
            with pytest.raises(UnknownDeviceError):
                async with other.holding(["motor2", "no_such"], "eve"):
                    pass
            assert other.operations.token == ""
            await change(one, "motor2")

    call(one, scenario())


steps = strategies.lists(
    strategies.tuples(
        strategies.integers(0, 1),
        strategies.sampled_from(("begin", "change", "end")),
        strategies.lists(strategies.sampled_from(DEVICES), min_size=1, max_size=3, unique=True).map(tuple),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(steps=steps)
def test_at_no_time_two_hold_a_device(links: tuple[DeviceLink, DeviceLink], steps: list[Step]) -> None:
    """Any course of holdings and changes by two links, against a dict."""

    async def scenario() -> None:
        held: dict[str, int] = {}
        try:
            for who, action, devices in steps:
                await take(who, action, devices, held)
        finally:
            for link in links:
                await link.claims.close()

    async def take(who: int, action: str, devices: tuple[str, ...], held: dict[str, int]) -> None:
        link = links[who]
        is_holder = bool(link.operations.token)
        if action == "end":
            await link.claims.close()
            for device in [device for device, holder in held.items() if holder == who]:
                del held[device]
        elif action == "begin" and not is_holder:
            is_free = all(held.get(device, who) == who for device in devices)
            with contextlib.nullcontext() if is_free else pytest.raises(DeviceHeld):
                await link.claims.begin(Holding(devices, f"link {who}"))
                held |= dict.fromkeys(devices, who)
        elif action == "change":
            path = devices[0]
            with contextlib.nullcontext() if held.get(path, who) == who else pytest.raises(DeviceHeld):
                await (link.request("slow", "unstage") if path == "slow" else change(link, path))
                if is_holder:
                    held[path] = who

    call(links[0], scenario())


def test_a_restarted_server_and_a_lost_redis_connection_do_not_free_what_is_held(
    redis_settings: Settings, tmp_path: Path
) -> None:
    with (
        running_server(redis_settings, tmp_path) as server,
        remote_bench(server) as bench,
        linked(bench.RE, server.settings) as other,
    ):
        link: DeviceLink = bench.devices["motor"]._link
        holding = Holding(("motor",), "anna")
        call(link, link.claims.begin(holding))
        server.end(kill=True)
        server.start()
        for each in (link, other):
            server.wait_until_heard(each)
        with redis.Redis.from_url(server.settings.redis_url or "") as client:
            key = DEVICE_HOLDERS.key(server.settings.beamline, server="main")
            wait_for(lambda: client.hexists(key, "motor"), lambda: "the claim on the new server")
            with pytest.raises(DeviceHeld, match="motor is held by anna"):
                call(other, change(other, "motor"))
            call(link, change(link, "motor", 1.0))
            for connection in client.client_list(_type="pubsub"):
                client.client_kill_filter(_id=connection["id"])
            call(link, link.claims.end(holding))  # nobody hears that
            for each in (link, other):
                server.wait_until_heard(each)
            wait_for(lambda: not client.hexists(key, "motor"), lambda: "the release")
        call(other, change(other, "motor", 2.0))


def test_a_server_that_is_heard_before_the_connection_is_complete_is_told_what_is_free(
    redis_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet = Connection._meet

    async def slowly(connection: Connection, server: str) -> None:
        await meet(connection, server)
        await asyncio.sleep(1.0)  # some of its beats come

    with running_server(redis_settings, tmp_path) as server, remote_bench(server) as bench:
        link: DeviceLink = bench.devices["motor"]._link
        holding = Holding(("motor",), "anna")
        call(link, link.claims.begin(holding))
        monkeypatch.setattr(Connection, "_meet", slowly)
        with redis.Redis.from_url(server.settings.redis_url or "") as client:
            key = DEVICE_HOLDERS.key(server.settings.beamline, server="main")
            wait_for(lambda: client.hexists(key, "motor"), lambda: "the claim")
            wire = link.operations.wire
            assert wire is not None and wire._transport is not None
            link.loop.call_soon_threadsafe(wire._transport.abort)
            wait_for(lambda: link.operations.wire is None, lambda: "the loss of the connection")
            call(link, link.claims.end(holding))
            wait_for(lambda: not client.hexists(key, "motor"), lambda: "the release")


def test_a_busy_server_is_told_once_more_what_is_free(
    links: tuple[DeviceLink, DeviceLink], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, other = links
    for each in links:
        server.wait_until_heard(each)
    holding = Holding(("motor",), "anna")
    call(link, link.claims.begin(holding))
    with redis.Redis.from_url(server.settings.redis_url or "") as client:
        key = DEVICE_HOLDERS.key(server.settings.beamline, server="main")
        wait_for(lambda: client.hexists(key, "motor"), lambda: "the claim")
        with monkeypatch.context() as patched:
            patched.setattr("bec_bluesky.proxy._claims._LONGEST_RELEASE", 0.0)  # no answer is that quick
            patched.setattr(link.operations, "submit_apart", lambda *_: None)  # nor was it sent
            call(link, link.claims.end(holding))
        wait_for(lambda: not client.hexists(key, "motor"), lambda: "the release")
    call(other, change(other, "motor", 2.0))
