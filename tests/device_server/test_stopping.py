"""Stopping one device, all devices, and what a lost client left behind."""

import pytest

from bec_bluesky.device_server import DeviceServer
from bec_bluesky.errors import RefusedError
from tests.device_server import odd_devices
from tests.device_server.device_server_harness import Client, until

pytestmark = pytest.mark.usefixtures("server")


async def test_a_move_is_stopped_on_its_way(client: Client) -> None:
    number = await client.start("slow", "set", 50.0)
    await until(lambda: client.of(number, "progress"), "progress")
    await client.ask("slow", "stop", success=False)
    with pytest.raises(RuntimeError, match="slow"):
        await client.end(number)
    assert 0.0 <= await client.ask("slow", "get") < 10.0


async def test_stopping_as_the_run_engine_does_ends_the_move_well(client: Client) -> None:
    number = await client.start("slow", "set", 50.0)
    await until(lambda: client.of(number, "progress"), "progress")
    await client.ask("slow", "stop", success=True)
    await client.end(number)


@pytest.mark.parametrize("name", ["slow", "creeping"])
async def test_a_stop_does_not_overtake_the_move_that_came_with_it(client: Client, name: str) -> None:
    for _ in range(10):
        move, stop = client.op(name, "set", 50.0), client.op(name, "stop")
        await client.send(move, stop)
        with pytest.raises(Exception, match=name):
            await client.end(move.id)
        await client.end(stop.id)


async def test_a_stop_does_not_reach_the_move_that_came_after_it(client: Client) -> None:
    for _ in range(10):
        moves = client.op("creeping", "set", 50.0), client.op("creeping", "set", -50.0)
        stop = client.op("creeping", "stop")
        await client.send(moves[0], stop, moves[1])
        with pytest.raises(Exception, match="creeping"):
            await client.end(moves[0].id)
        await client.end(stop.id)
        position = await client.ask("creeping", "get")
        assert await client.ask("creeping", "get") <= position, "it creeps the way of the second move"
        assert not client.of(moves[1].id, "failed")
        await client.ask("creeping", "stop")
        with pytest.raises(Exception, match="creeping"):
            await client.end(moves[1].id)


async def test_a_device_that_blocks_is_stopped_at_once(client: Client) -> None:
    number = await client.start("napper", "nap", 60.0)
    await client.ask("sig", "read")
    await client.ask("napper", "stop")
    assert await client.end(number) == "woken"


async def test_one_panic_stop_reaches_everything(client: Client) -> None:
    moves = [await client.start(name, "set", 50.0) for name in ("slow", "slow2")]
    nap = await client.start("dozer", "nap", 60.0)
    for move in moves:
        await until(lambda move=move: client.of(move, "progress"), "progress")
    odd_devices.let_go.set()
    assert await client.ask("", "stop_all") == {}
    for move in moves:
        with pytest.raises(RuntimeError):
            await client.end(move)
    assert await client.end(nap) == "woken"


async def test_panic_stop_works_when_every_thread_is_blocked(client: Client) -> None:
    """As many as there are threads for devices that need none of their own."""
    naps = [await client.start(f"napper{number}", "nap", 60.0) for number in range(20)]
    await client.ask("soft", "get")
    odd_devices.let_go.set()
    assert await client.ask("", "stop_all") == {}
    assert [await client.end(nap) for nap in naps[:16]] == ["woken"] * 16
    for number in range(16, 20):  # those began only now
        await client.ask(f"napper{number}", "stop")
        assert await client.end(naps[number]) == "woken"


async def test_a_stop_that_hangs_delays_no_other_and_is_named(client: Client) -> None:
    odd_devices.let_go.clear()
    try:
        move = await client.start("slow", "set", 50.0)
        await until(lambda: client.of(move, "progress"), "progress")
        stops = [await client.start("", "stop_all") for _ in range(2)]
        for stop in stops:
            assert await client.end(stop) == {"unstoppable": "its stop() has not returned for 1 s"}
        ends = [each.id for each in client.answers if each.code in ("failed", "result")]
        assert ends == [move, *stops]
    finally:
        odd_devices.let_go.set()


async def test_after_a_panic_stop_the_plan_that_ran_moves_nothing_and_the_next_one_does(client: Client) -> None:
    odd_devices.let_go.set()
    number = client.op("motor", "set", 1.0)
    await client.send(number, token="item 1")
    await client.end(number.id)
    assert await client.ask("", "stop_all") == {}
    for verb, arguments in (("set", (2.0,)), ("stage", ())):
        op = client.op("motor", verb, *arguments)
        await client.send(op, token="item 1")
        with pytest.raises(RefusedError, match=f"motor.{verb} is not carried out: a panic stop at .* ended this plan"):
            await client.end(op.id)
    for verb in ("read", "unstage", "stop"):
        op = client.op("motor", verb)
        await client.send(op, token="item 1")
        await client.end(op.id)
    op = client.op("", "release")
    await client.send(op, token="item 1")
    await client.end(op.id)
    op = client.op("motor", "set", 3.0)
    await client.send(op, token="item 2")
    await client.end(op.id)
    assert await client.ask("motor", "get") == 3.0


async def test_stopping_is_never_refused(client: Client) -> None:
    """Not even by a server of another epoch, or long after the deadline."""
    odd_devices.let_go.set()
    move = await client.start("slow", "set", 50.0)
    await until(lambda: client.of(move, "progress"), "progress")
    stop = client.op("slow", "stop", success=True)
    await client.send(stop, epoch="an earlier one", deadline=1.0)
    await client.end(stop.id)
    await client.end(move)
    stop_all = client.op("", "stop_all")
    await client.send(stop_all, epoch="an earlier one", deadline=1.0)
    assert await client.end(stop_all.id) == {}


async def test_of_a_lost_client_moves_end_stages_and_subscriptions_go(client: Client, server: DeviceServer) -> None:
    other = Client(server.bus, "other")
    await other.connect()
    try:
        await other.ask("blob", "stage")
        lost = [await other.start("slow", "set", 50.0), await other.start("soft", "subscribe")]
        kept = await client.start("slow2", "set", 50.0)
        for owner, number in ((other, lost[0]), (client, kept)):
            await until(lambda owner=owner, number=number: owner.of(number, "progress"), "progress")
        assert server._executor is not None
        assert await client.ask("", "client_lost", "other") == {}
        with pytest.raises(RuntimeError):
            await other.end(lost[0])
        assert client.of(kept, "done", "failed") == []
        assert server._executor.statuses.staged == {}
        values = len(other.of(lost[1], "value"))
        await client.ask("soft", "set", 8.0)
        await other.ask("", "ping")
        assert len(other.of(lost[1], "value")) == values
        await client.ask("slow2", "stop")
    finally:
        other.close()


async def test_a_client_that_dies_without_a_word_is_noticed(client: Client, server: DeviceServer) -> None:
    """Nobody says `client_lost`: its connection to Redis is gone, as that of a killed process."""
    other = Client(server.bus, "other")
    await other.connect()
    await other.ask("blob", "stage")
    for device in ("slow", "steady"):
        number = await other.start(device, "set", 50.0)
        await until(lambda number=number: other.of(number, "progress"), "progress")
    kept = await client.start("slow2", "set", 50.0)
    await other.start("soft", "subscribe")
    other.close()
    assert server._executor is not None
    statuses = server._executor.statuses
    await until(lambda: not statuses.staged and statuses.moving() == {"slow2", "steady"}, "the end of what it did")
    assert client.of(kept, "done", "failed") == []
    assert server._executor.monitors.clients() == set()
    assert await client.ask("", "stop_all") == {}
    await until(lambda: not statuses.moving(), "the end of all moves")


async def test_a_flight_of_a_lost_client_is_stopped(client: Client, server: DeviceServer) -> None:
    other = Client(server.bus, "other")
    await other.connect()
    try:
        flight = {"start_position": 0.0, "end_position": 20.0, "time_for_move": 20.0}
        await other.ask("slow", "prepare", flight)
        await other.ask("slow", "kickoff")
        await client.ask("", "client_lost", "other")
        await until(lambda: server._executor is not None and not server._executor.statuses.flying, "the end")
        before = await client.ask("slow", "get")
        await client.ask("napper", "nap", 0.3)
        assert await client.ask("slow", "get") == before
    finally:
        other.close()
