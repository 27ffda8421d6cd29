"""One scan server at a time runs the queues: a second one is refused, stands by, or takes over; real processes."""

import asyncio
import contextlib
import os
import signal

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.channels import LEASE, SERVICES
from bec_bluesky.errors import FencedError
from bec_bluesky.messages.queue import AddItem, ItemAccepted, ReleaseItem, StartQueue
from bec_bluesky.scan_server import ScanServer
from bec_bluesky.scan_server._ownership import Ownership
from bec_bluesky.settings import Settings
from tests.scan_server.scan_server_harness import SCRIPTED, Client, process, serving, until


async def pid_of(bus: Bus, service: str) -> int:
    beat = await bus.get(SERVICES, service=service)
    return 0 if beat is None or beat.state != "running" else beat.pid


async def test_a_second_scan_server_refuses_to_start_and_disturbs_nothing(settings: Settings, client: Client) -> None:
    async with process(settings):
        await client.ask(AddItem(plan="wait", start=True))
        await client.until_status(scan_id=1)
        with pytest.raises(ExceptionGroup) as refused:
            await ScanServer(settings, worker_command=SCRIPTED).run()
        assert refused.group_contains(FencedError, match=r"another scan server \(pid \d+ on .* stop it first, or start")
        status = await client.until_status(scan_id=1)
        assert (status.queue_state, status.run_state) == ("running", "running")


async def test_a_standby_takes_over_from_a_suspended_owner_which_ends_itself_when_it_wakes(
    settings: Settings, client: Client, bus: Bus
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(process(settings))
        accepted: ItemAccepted = await client.ask(AddItem(plan="wait", start=True))
        await client.until_status(scan_id=1)
        second = await stack.enter_async_context(process(settings, take_over="when_free"))

        async def stands_by() -> bool:
            return await pid_of(bus, "scan_server.waiting") == second.pid

        await until(stands_by)
        assert await pid_of(bus, "scan_server") == first.pid
        first.send_signal(signal.SIGSTOP)

        async def has_taken_over() -> bool:
            return await pid_of(bus, "scan_server") == second.pid

        await until(has_taken_over)
        (held,) = (await client.queue()).waiting
        assert (held.item_id, held.state) == (accepted.item.item_id, "held")
        first.send_signal(signal.SIGCONT)
        async with asyncio.timeout(20):
            assert await first.wait() != 0
        await client.ask(ReleaseItem(item_id=held.item_id))
        await client.ask(StartQueue())
        await client.until_status(scan_id=1)
        lease = await bus.get(LEASE)
        assert lease.pid == second.pid


@pytest.mark.slow
async def test_a_standby_takes_over_at_once_when_the_owner_is_killed_or_stops(
    settings: Settings, client: Client, bus: Bus
) -> None:
    async with process(settings) as first:
        await client.ask(AddItem(plan="quick"))
        async with (
            process(settings, take_over="when_free") as second,
            process(settings, take_over="when_free") as third,
        ):
            first.kill()
            await first.wait()

            async def one_has_taken_over() -> bool:
                lease = await bus.get(LEASE)
                return lease is not None and lease.pid in (second.pid, third.pid)

            await until(one_has_taken_over, timeout=4.0)
            lease = await bus.get(LEASE)
            os.kill(lease.pid, signal.SIGTERM)
            left = ({second.pid, third.pid} - {lease.pid}).pop()

            async def the_other_has_taken_over() -> bool:
                now = await bus.get(LEASE)
                return now is not None and now.pid == left

            await until(the_other_has_taken_over)
            assert len((await client.queue()).waiting) == 1


@pytest.mark.slow
async def test_a_standby_leaves_an_owner_alone_whose_lease_redis_forgot(bus: Bus) -> None:
    owner, standby = Ownership(bus), Ownership(bus)
    await owner.take("if_free")
    waiting = asyncio.create_task(standby.take("when_free"))
    for _ in range(3):
        await bus.delete(LEASE)
        done, _pending = await asyncio.wait([waiting], timeout=0.6)
        assert not done
        await owner.renew()
    await owner.release()
    assert await waiting == owner.token + 1


async def test_an_owner_that_stops_in_order_leaves_the_queues_to_the_next(settings: Settings, bus: Bus) -> None:
    async with serving(ScanServer(settings, worker_command=SCRIPTED, has_spare=False)):

        async def is_owned() -> bool:
            return await bus.get(LEASE) is not None

        await until(is_owned)
    assert await bus.get(LEASE) is None


async def test_of_two_that_try_at_once_one_becomes_the_owner(bus: Bus) -> None:
    first, second = Ownership(bus), Ownership(bus)
    outcomes = await asyncio.gather(first._try(None, force=False), second._try(None, force=False))
    assert sorted(outcomes) == [False, True]
    owner, loser = (first, second) if outcomes[0] else (second, first)
    await owner.renew()
    with pytest.raises(FencedError):
        await loser.renew()
    taken = await loser.take("at_once")
    assert taken == owner.token + 1
    with pytest.raises(FencedError, match="took over"):
        await owner.renew()
