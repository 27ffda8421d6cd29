"""A scan does not notice who looks on: same documents with viewers that read and subscribe as without."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from bluesky import plans as bp

from bec_bluesky.client import Client
from tests.client.device_process import DeviceProcess, wait_for
from tests.engines import running_engine
from tests.proxy.conftest import Bench, Outcome, linked

WATCHED = ("samx", "theta", "det", "temperature", "theta.velocity")


@contextlib.contextmanager
def viewers(beamline: DeviceProcess, number: int) -> Iterator[list[int]]:
    """Let so many clients subscribe to everything and read in turn, as fast as they can; give how often each did."""
    is_over = threading.Event()
    counts = [0] * number
    with contextlib.ExitStack() as exits:
        clients = [exits.enter_context(Client(beamline.settings)) for _ in range(number)]

        def look(which: int) -> None:
            dev = clients[which].dev
            for path in WATCHED:
                dev[path].subscribe(lambda reading: None)
            while not is_over.is_set():
                for path in WATCHED:
                    dev[path].read()
                    dev[path].get()
                counts[which] += 1

        threads = [threading.Thread(target=look, args=(which,)) for which in range(number)]
        for thread in threads:
            thread.start()
        wait_for(lambda: all(counts), lambda: f"viewers have looked {counts} times")
        try:
            yield counts
        finally:
            is_over.set()
            for thread in threads:
                thread.join()


def test_a_scan_has_the_same_documents_while_five_viewers_read_and_subscribe(
    beamline: DeviceProcess, tmp_path: Path
) -> None:
    with running_engine() as RE, linked(RE, beamline.settings) as link:
        wait_for(lambda: "theta" in link.devices and link.is_heard("main"), beamline.said)
        bench = Bench(RE, link.devices, tmp_path)

        def scans() -> list[Outcome]:
            dev = link.devices
            return [
                bench.run(bp.scan([dev["det"], dev["temperature"]], dev["samx"], 0, 4, 5)),
                bench.run(bp.list_scan([dev["det"], dev["telling"]], dev["theta"], [0.5, 0.0, 0.25])),
                bench.run(bp.rel_scan([dev["det"]], dev["samx"], -1, 1, 3)),
            ]

        scans()  # the devices are where the next ones leave them
        alone = scans()
        with viewers(beamline, 5) as counts:
            before = list(counts)
            watched = scans()
            wait_for(lambda: all(now > then for now, then in zip(counts, before, strict=True)), lambda: f"{counts}")
    assert [outcome.exit_status for outcome in alone] == ["success"] * 3, alone
    assert [without_numbers(outcome) for outcome in watched] == [without_numbers(outcome) for outcome in alone]


def without_numbers(outcome: Outcome) -> list[object]:
    """Give the documents without the number of the scan, which goes on."""
    return [
        [name, {**document, "scan_id": 0} if "scan_id" in document else document]
        for name, document in outcome.documents
    ]


def test_a_subscription_sets_up_no_monitor(beamline: DeviceProcess, bl: Client) -> None:
    """A monitored signal of ophyd-async would answer a scan's `read()` from its cache."""
    telling = bl.dev.telling
    heard = threading.Event()
    with telling.subscribe(lambda reading: heard.set()), telling.value.subscribe(lambda reading: None):
        assert heard.wait(30.0)
        telling.value.put(3.5)
        assert telling.wait_for(3.5, timeout=30.0) == 3.5
        assert telling.is_monitored() is False
        telling.stage().wait(30.0)
        assert telling.is_monitored() is True
        telling.unstage().wait(30.0)
