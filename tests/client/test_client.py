"""The client as an object: light, closed cleanly, and with errors that say the way out."""

import asyncio
import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from bec_bluesky import connect
from bec_bluesky.bus import Bus
from bec_bluesky.client import Client
from bec_bluesky.client._arguments import plain
from bec_bluesky.client._loop import LoopThread
from bec_bluesky.client._plans import PlanCall, Plans
from bec_bluesky.errors import BusError, NoReplyError, RefusedError, UnknownPlanError
from bec_bluesky.messages.queue import Parameter, PlanInfo, QueueItem
from bec_bluesky.settings import Settings

SCAN = PlanInfo(
    name="scan",
    module="plans.scans",
    summary="Scan over one axis.",
    text="Scan over one axis.\n\nMore of it.",
    parameters=[
        Parameter(name="detectors", kind="positional_or_keyword", annotation="Sequence[Readable]"),
        Parameter(name="args", kind="var_positional"),
        Parameter(name="num", kind="keyword_only", annotation="int", has_default=True, default="11"),
    ],
)


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    loop.start()
    yield loop
    loop.stop()


def test_importing_the_client_imports_nothing_heavy() -> None:
    code = (
        "from bec_bluesky import connect\n"
        "import sys; heavy = {'bluesky', 'ophyd', 'ophyd_async', 'tiled', 'h5py', 'scipy'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_connecting_to_a_system_that_is_not_up_says_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(BusError, match=r"no bec-bluesky system runs in .*: start it with `bec-bluesky up`"):
        connect(data_dir=tmp_path)


def test_a_request_without_a_scan_server_is_refused(settings: Settings) -> None:
    with Client(settings) as client, pytest.raises(NoReplyError, match=r"no scan server of beamline .* is running"):
        client.status


def test_a_closed_client_says_so(settings: Settings) -> None:
    client = Client(settings)
    client.open()
    assert client.services == {}
    client.close()
    client.close()
    with pytest.raises(BusError, match="closed"):
        client.services


def test_a_run_that_is_not_known_is_refused_with_the_place_of_older_ones(settings: Settings) -> None:
    with Client(settings) as client, pytest.raises(RefusedError, match=r"no run 12 on Redis.*catalogue"):
        client.points(12)


def test_a_plan_has_its_signature_and_its_text() -> None:
    plans = Plans(lambda: {"scan": SCAN}, lambda plan, args, kwargs: QueueItem(item_id=plan))  # pyright: ignore
    assert "scan" in dir(plans)
    assert str(inspect.signature(plans.scan)) == "(detectors: Sequence[Readable], *args, num: int = 11)"
    assert "More of it." in (inspect.getdoc(plans.scan) or "")
    with pytest.raises(AttributeError, match="did you mean 'scan'"):
        plans.scann
    with pytest.raises(UnknownPlanError):
        plans["grid"]


def test_calling_a_plan_runs_it_with_what_was_given() -> None:
    called: list[object] = []

    def run(plan: str, args: tuple[object, ...], kwargs: dict[str, object]) -> QueueItem:
        called.append((plan, args, kwargs))
        return QueueItem(item_id="1", plan=plan)

    assert PlanCall(SCAN, run)(["det"], "samx", -1, 1, num=3).plan == "scan"
    assert called == [("scan", (["det"], "samx", -1, 1), {"num": 3})]


def test_what_is_no_device_stays_as_it_is_in_arguments() -> None:
    assert plain(Path("/data/x.h5")) == Path("/data/x.h5")
    assert plain({"a": (1, [2.5, "samx"])}) == {"a": [1, [2.5, "samx"]]}


def test_an_interrupt_while_waiting_for_an_element_loses_none(loop: LoopThread) -> None:
    asked = threading.Event()

    async def numbers() -> AsyncGenerator[int, None]:
        yield 1
        while not asked.is_set():
            await asyncio.sleep(0.01)
        yield 2

    elements = loop.iterate(numbers())
    assert next(elements) == 1
    timer = threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(elements)
    timer.join()
    asked.set()
    assert list(elements) == [2]


def test_an_error_in_the_generator_is_raised_where_its_elements_are_read(loop: LoopThread) -> None:
    async def broken() -> AsyncGenerator[int, None]:
        yield 1
        raise BusError("gone")

    elements = loop.iterate(broken())
    assert next(elements) == 1
    with pytest.raises(BusError, match="gone"):
        next(elements)
    with pytest.raises(StopIteration):
        next(elements)


def test_what_a_session_follows_ends_before_its_connection(
    redis_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    async def endless() -> AsyncGenerator[int, None]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0.01)
        finally:
            order.append("iteration")

    leave = Bus.__aexit__

    async def leave_and_tell(bus: Bus, *exc: object) -> None:
        order.append("connection")
        await leave(bus, *exc)

    monkeypatch.setattr(Bus, "__aexit__", leave_and_tell)
    with Client(redis_settings) as bl:
        assert next(bl._loop.iterate(endless())) == 1
        kept = bl._loop.iterate(endless())
        assert next(kept) == 1
    assert order[-2:] == ["iteration", "connection"]
    assert set(kept) <= {1}  # it ends
