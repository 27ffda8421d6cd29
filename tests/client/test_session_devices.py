"""Devices in a person's session, with a real device server: what TAB offers, reading, moving, watching."""

import io
import pydoc
import queue
import rlcompleter
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bec_bluesky.client import Client
from bec_bluesky.client._arguments import plain
from bec_bluesky.errors import (
    BadArgumentError,
    DeviceFailed,
    DeviceHeld,
    DeviceServerLost,
    DeviceTimeout,
    UnknownDeviceError,
)
from bec_bluesky.settings import Settings
from tests.client.device_process import DeviceProcess, running_devices, wait_for


def completions(text: str, **names: Any) -> list[str]:
    """Give what TAB offers at a plain Python prompt."""
    completer = rlcompleter.Completer(names)
    found: list[str] = []
    while (offered := completer.complete(text, len(found))) is not None:
        found.append(offered.rstrip("()"))
    return found


def test_tab_offers_devices_their_parts_and_what_they_can_do(bl: Client) -> None:
    dev = bl.dev
    assert {"dev.samx", "dev.theta", "dev.det", "dev.select"} <= set(completions("dev.", dev=dev))
    assert {"dev.theta.move", "dev.theta.position", "dev.theta.velocity"} <= set(completions("dev.theta.", dev=dev))
    assert completions("dev.theta.vel", dev=dev) == ["dev.theta.velocity"]
    assert {"read", "trigger", "center", "subscribe"} <= set(dir(dev.det))
    assert not {"move", "mvr", "set", "put", "position"} & set(dir(dev.det))  # IPython offers what `dir` gives
    assert "put" in dir(dev.theta.velocity)
    assert dev._ipython_key_completions_() == sorted(dev)
    assert vars(bl)["dev"] is dev  # a property would not be evaluated by jedi, and `bl.dev.` offer nothing
    assert dev.bank.parts["parts"]._ipython_key_completions_() == ["1", "2"]


def test_parts_are_found_by_attribute_by_index_and_by_dotted_path(bl: Client) -> None:
    assert bl.dev.theta.velocity is bl.dev["theta.velocity"] is bl.dev["theta"]["velocity"]
    assert bl.dev.bank["parts"][2] is bl.dev["bank.parts.2"] is bl.dev.bank["parts.2"]
    assert bl.dev["bank.parts.2"].get() == 2.0
    assert bl.dev.theta.velocity.parent is bl.dev.theta
    assert "theta.velocity" in bl.dev and "theta.speed" not in bl.dev
    with pytest.raises(UnknownDeviceError, match="did you mean 'theta'"):
        bl.dev["thetta"]
    with pytest.raises(AttributeError, match="did you mean 'velocity'"):
        bl.dev.theta.velocty
    with pytest.raises(KeyError, match=r"bank\.parts has no part 3"):
        bl.dev.bank["parts"][3]


def test_a_device_reads_and_describes_itself_now(bl: Client) -> None:
    assert bl.dev.samx.move(2.0) == 2.0
    reading = bl.dev.samx.read()
    assert reading["samx"]["value"] == 2.0 and reading["samx_setpoint"]["value"] == 2.0
    assert bl.dev.samx.get() == bl.dev.samx.position == 2.0
    assert bl.dev.theta.units == "deg"
    assert bl.dev.theta.describe()["theta"]["dtype"] == "number"
    assert bl.dev.theta.limits == (-180.0, 180.0)
    assert bl.dev.temperature.limits is None
    assert bl.dev.theta.labels == bl.dev.theta.velocity.labels == ["motors", "sample"]
    assert bl.dev.image.get().shape == (200, 200)
    assert bl.dev.slow.read_configuration().keys() >= {"slow-velocity"}


def test_a_set_gives_a_status_that_shows_how_far_it_is(bl: Client) -> None:
    bl.dev.theta.move(0.0)
    status = bl.dev.theta.set(40.0)
    reported: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    status.watch(lambda **_: reported.put(status.progress))
    assert "theta.set(40.0)" in repr(status)
    status.wait(30.0)
    assert status.done and status.success and status.progress == 1.0
    assert bl.dev.theta.position == 40.0
    first = reported.get(timeout=1.0)
    assert first is not None and 0.0 <= first < 1.0
    assert bl.dev.theta.mvr(-10) == 30.0


def test_move_shows_a_bar_on_a_terminal(bl: Client) -> None:
    bl.dev.theta.move(0.0)
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    bl.dev.theta.set(20.0).wait_and_show(30.0, console)
    assert "theta" in shown.getvalue() and "→ 20 deg" in shown.getvalue()
    quiet = io.StringIO()
    bl.dev.theta.set(0.0).wait_and_show(30.0, Console(file=quiet))
    assert quiet.getvalue() == ""


def test_a_move_that_takes_too_long_is_said_and_goes_on_until_it_is_stopped(bl: Client) -> None:
    status = bl.dev.slow.set(bl.dev.slow.position + 5.0)
    with pytest.raises(DeviceTimeout, match=r"is not done after 0\.05 s"):
        status.wait(0.05)
    assert not status.done
    status.stop()
    with pytest.raises(Exception):  # noqa: B017  # whatever the device says of it
        status.wait(30.0)
    assert status.done and not status.success


def test_ctrl_c_in_a_move_stops_the_device(bl: Client) -> None:
    moving = threading.Event()

    def interrupt() -> None:
        moving.wait(30.0)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    bl.dev.slow.set(bl.dev.slow.position).wait(30.0)
    start = bl.dev.slow.position
    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with (
        pytest.raises(KeyboardInterrupt),
        bl.dev.slow.subscribe(lambda reading: moving.set() if reading["slow"]["value"] > start + 0.01 else None),
    ):
        bl.dev.slow.move(start + 100.0)
    interrupter.join()
    assert start < bl.dev.slow.position < start + 99.0
    bl.dev.slow.set(bl.dev.slow.position).wait(30.0)  # it takes a new one, which an old move would hinder


def test_refusals_are_the_device_servers_own_and_import_nothing(bl: Client) -> None:
    with pytest.raises(Exception, match="100 is outside its limits, -20 to 20"):
        bl.dev.samx.move(100)
    with pytest.raises(DeviceFailed, match="broken is failed"):
        bl.dev.broken.ask("read")
    assert bl.dev.broken.reason == "it did not connect within 0.2 s"
    with pytest.raises(BadArgumentError, match="no signal"):
        bl.dev.theta.put(1)
    code = """
import sys
from bec_bluesky.client import Client
from bec_bluesky.errors import RemoteError
from bec_bluesky.settings import load
with Client(load()) as bl:
    try:
        bl.dev.samx.move(100)
    except RemoteError as error:
        print(error.kind, {"bluesky", "ophyd", "ophyd_async"} & set(sys.modules))
"""
    environment = bl.settings.environment()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "ophyd.utils.errors.LimitError set()", done.stderr


def test_signals_are_written_and_waited_for(bl: Client) -> None:
    bl.dev.temperature.put(20.0)
    timer = threading.Timer(0.1, bl.dev.temperature.put, (30.25,))
    timer.start()
    assert bl.dev.temperature.wait_for(30.0, tolerance=0.5, timeout=30.0) == 30.25
    timer.join()
    assert bl.dev.temperature.wait_for(lambda reading: reading["temperature"]["value"] > 30, timeout=30.0) == 30.25
    with pytest.raises(DeviceTimeout, match=r"did not read 99 within 0\.05 s; it reads 30\.25"):
        bl.dev.temperature.wait_for(99, timeout=0.05)


def test_a_script_that_does_not_close_its_client_ends_in_silence(bl: Client) -> None:
    code = """
from bec_bluesky import connect
bl = connect()
bl.dev.samx.subscribe(lambda reading: None)
print(bl.dev.samx.path, len(bl.dev.samx.read()))
"""
    environment = bl.settings.environment()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("samx 2\n", "", 0)


def test_what_moves_nothing_is_said_instead_of_done(bl: Client) -> None:
    with pytest.raises(AttributeError, match=r"dev.samx.move\(3\)"):
        bl.dev.samx = 3
    with pytest.raises(AttributeError, match=r"velocity.put\(3\)"):
        bl.dev.theta.velocity = 3
    with pytest.raises(BadArgumentError, match=r"det cannot set: it can .*trigger"):
        bl.dev.det.move(1)
    assert bl.dev.samx is bl.dev["samx"]
    with pytest.raises(TypeError, match="moves to a number, -20 to 20, not to 'left'"):
        bl.dev.samx.move("left")


@pytest.mark.parametrize("path", ["temperature", "theta.velocity", "samx.velocity", "bank.parts.1"])
def test_a_subscription_tells_the_present_and_every_later_value(bl: Client, path: str) -> None:
    """Of a device and of parts, which have no published readback; of ophyd-async and of ophyd."""
    signal_ = bl.dev[path]
    values: queue.SimpleQueue[float] = queue.SimpleQueue()
    signal_.put(1.5)
    with signal_.subscribe(lambda reading: values.put(reading[signal_.name]["value"])):
        assert values.get(timeout=30.0) == 1.5
        signal_.put(2.5)
        assert values.get(timeout=30.0) == 2.5
    signal_.put(20.0)
    assert signal_.get() == 20.0
    assert values.empty()


def test_a_slow_or_failing_callback_gets_the_newest_and_costs_others_nothing(
    bl: Client, caplog: pytest.LogCaptureFixture
) -> None:
    let_go, begun, last = threading.Event(), threading.Event(), threading.Event()
    seen: list[float] = []

    def slow(reading: dict[str, Any]) -> None:
        begun.set()
        let_go.wait(30.0)
        seen.append(bl.dev.temperature.get())  # a callback may call devices
        if reading["temperature"]["value"] == 9.0:
            last.set()

    with bl.dev.temperature.subscribe(slow), bl.dev.temperature.subscribe(lambda reading: 1 / 0):
        begun.wait(30.0)
        for value in (5.0, 6.0, 7.0, 8.0, 9.0):
            bl.dev.temperature.put(value)
        with Client(bl.settings) as other:  # the log has the last one when another client hears it
            other.dev.temperature.wait_for(9.0, timeout=30.0)
        let_go.set()
        assert last.wait(30.0)
    assert len(seen) < 6
    assert "a callback of temperature failed" in caplog.text


def test_a_device_that_blocks_is_viewed_without_being_read(bl: Client) -> None:
    seen = threading.Event()
    with bl.dev.dozer.subscribe(lambda reading: seen.set()):
        bl.dev.dozer.trigger().wait(30.0)
        bl.dev.dozer.read()
        assert seen.wait(30.0)


def test_devices_show_what_a_scientist_wants_to_know(bl: Client) -> None:
    bl.dev.theta.move(12.5)
    assert "deg" in bl.dev.theta.units
    assert repr(bl.dev.theta) == "<theta: 12.5 deg, limits -180 to 180, SimMotor, connected>"
    assert "failed: " in repr(bl.dev.broken)
    help_text = pydoc.render_doc(bl.dev.theta, renderer=pydoc.plaintext)
    assert "limits   -180 to 180 deg" in help_text and "move(value)" in help_text
    assert "move(value)" not in (bl.dev.det.__doc__ or "")
    wait_for(lambda: "12.5" in repr(bl.dev), lambda: repr(bl.dev))
    header, *rows = repr(bl.dev).splitlines()
    assert header.split() == ["device", "value", "units", "limits", "state", "class", "labels"]
    assert [row.split()[0] for row in rows] == sorted(bl.dev)
    assert [device.path for device in bl.dev.select(label="motors")] == ["samx", "theta"]
    assert [device.path for device in bl.dev.select(state="failed")] == ["broken"]


def test_a_device_that_somebody_holds_can_be_looked_at_and_stopped_but_not_moved(bl: Client) -> None:
    slow = bl.dev.slow
    assert slow.holder is None
    with Client(bl.settings, user="anna") as other, other.dev.holding(other.dev.slow, why="alignment"):
        status = other.dev.slow.set(slow.position + 100.0)
        for attempt in (lambda: slow.move(0), lambda: slow.velocity.put(1.0), lambda: slow.ask("prepare", {})):
            with pytest.raises(DeviceHeld, match=r"slow is held by anna \(alignment\)"):
                attempt()
        with pytest.raises(DeviceHeld), bl.dev.holding("theta", slow):
            pass
        wait_for(lambda: slow.holder, lambda: "no holder is published")
        assert slow.velocity.holder == slow.holder == "anna (alignment)"
        assert repr(slow).endswith("held by anna (alignment)>")
        assert "anna (alignment)" in repr(bl.dev)
        assert slow.read().keys() == {"slow"}
        slow.stop()
        with pytest.raises(Exception):  # noqa: B017  # whatever the device says of a stopped move
            status.wait(30.0)
    wait_for(lambda: slow.holder is None, lambda: f"still held by {slow.holder}")
    slow.set(slow.position).wait(30.0)


def test_devices_go_into_arguments_by_their_paths(bl: Client) -> None:
    dev = bl.dev
    assert plain([[dev.samx, "det"], {"a": (dev["theta.velocity"], 1)}]) == [
        ["samx", "det"],
        {"a": ["theta.velocity", 1]},
    ]


def test_devices_work_from_many_threads(bl: Client) -> None:
    dev = bl.dev
    found: list[float] = []

    def use(number: int) -> None:
        part = dev[f"bank.parts.{1 + number % 2}"]
        found.extend(part.get() for _ in range(20))

    bl.dev["bank.parts.1"].put(1.0)
    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(np.unique(found)) == [1.0, 2.0]
    assert len(found) == 120


def test_a_killed_device_server_is_said_and_the_same_objects_work_again(
    redis_settings: Settings, tmp_path: Path
) -> None:
    with running_devices(redis_settings, tmp_path, "mortal") as server, Client(server.settings) as bl:
        lose_and_find_again(bl, server)


def lose_and_find_again(bl: Client, server: DeviceProcess) -> None:
    theta = bl.dev.theta
    values: queue.SimpleQueue[float] = queue.SimpleQueue()
    viewing = theta.velocity.subscribe(lambda reading: values.put(reading["theta-velocity"]["value"]))
    values.get(timeout=30.0)
    status = bl.dev.slow.set(bl.dev.slow.position + 50.0)
    server.kill()
    with pytest.raises(DeviceServerLost):
        status.wait(30.0)
    with pytest.raises(DeviceServerLost, match="not running"):
        theta.read()
    wait_for(lambda: theta.state == "no server", lambda: theta.state)
    assert "gives no sign of life" in repr(theta)
    server.start()
    wait_for(lambda: theta.state == "connected", server.said)
    assert theta.move(5.0) == 5.0
    theta.velocity.put(33.0)
    wait_for(lambda: values.get(timeout=30.0) == 33.0, lambda: "the view did not come back")
    viewing.close()
