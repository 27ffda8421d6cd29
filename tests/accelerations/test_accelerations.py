"""Each acceleration changes nothing but the time that it takes, and keeps off where it is not known to fit."""

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky import RunEngine, bundlers, protocols
from bluesky.run_engine import _set_span_msg_attributes
from bluesky.utils import FailedStatus, Plan
from ophyd import Component, Device, Signal
from ophyd.sim import SynAxis, SynGauss
from ophyd.status import DeviceStatus, Status
from ophyd_async.core import AsyncStatus, StandardReadable, soft_signal_r_and_setter

from bec_bluesky.accelerations import ALL, _accelerate, _acceleration, accelerate, chosen, withdrawn
from bec_bluesky.errors import SettingsError
from tests.engines import running_engine
from tests.proxy.canonical import Canonical


class Failing(Device):
    """Fails in its status, at once or a little later."""

    value = Component(Signal, value=1.0, kind="hinted")

    def trigger(self) -> DeviceStatus:
        status = DeviceStatus(self)
        status.set_exception(RuntimeError("the shutter is stuck"))
        return status


class Wrong(Signal):
    """Reads something else than it describes, from the second time on."""

    times = 0
    keys: tuple[str, ...] = ()

    def read(self) -> Any:
        self.times += 1
        reading = super().read()
        return reading if self.times == 1 else dict.fromkeys(self.keys, reading[self.name])


class AsyncDetector(StandardReadable):
    def __init__(self, name: str = "") -> None:
        with self.add_children_as_readables():
            self.value, self._set_value = soft_signal_r_and_setter(float, 0.0)
        super().__init__(name=name)

    @AsyncStatus.wrap
    async def trigger(self) -> None:
        self._set_value(await self.value.get_value() + 1.0)


def devices() -> dict[str, Any]:
    motor = SynAxis(name="motor")
    return {
        "motor": motor,
        "det": SynGauss("det", motor, "motor", center=0, Imax=1, sigma=1),
        "signal": Signal(name="signal", value=3, timestamp=1.0),
        "failing": Failing(name="failing"),
        "wrong": Wrong(name="wrong", value=1.0, timestamp=1.0),
        "twin": Signal(name="signal", value=4, timestamp=1.0),
    }


def monitored(d: dict[str, Any]) -> Any:
    @bpp.monitor_during_decorator([d["signal"]])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.mv(d["signal"], 5)
        yield from bps.trigger_and_read([d["det"], d["motor"]])

    return plan()


def failed_beside_others(d: dict[str, Any]) -> Any:
    """A status fails while another of its group is not done; the other is waited for afterwards."""

    class Late:
        name = "late"

        def __init__(self) -> None:
            self.status = Status()

        def trigger(self) -> Status:
            return self.status

    late = Late()

    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.trigger(late, group="all")
        yield from bps.trigger(d["failing"], group="all")
        seen = "nothing"
        try:
            yield from bps.wait("all")
        except FailedStatus:
            seen = "FailedStatus"
        late.status.set_finished()
        yield from bps.wait("all")
        yield from bps.null()
        return seen

    return plan()


def wrong_keys(*keys: str) -> Callable[[dict[str, Any]], Any]:
    def plan(d: dict[str, Any]) -> Any:
        d["wrong"].keys = keys
        return bp.count([d["wrong"]], 2)

    return plan


PLANS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "count": lambda d: bp.count([d["det"], d["signal"], d["motor"]], 3),
    "scan": lambda d: bp.scan([d["det"]], d["motor"], -1, 1, 3),
    "relative": lambda d: bp.rel_scan([d["det"]], d["motor"], -1, 1, 3),
    "tune": lambda d: bp.tune_centroid([d["det"]], "det", d["motor"], -1, 1, 0.3, 4),
    "baseline": lambda d: bpp.baseline_wrapper(bp.count([d["det"]]), [d["motor"]]),
    "monitor": monitored,
    "failure": lambda d: bp.count([d["failing"]]),
    "failure beside others": failed_beside_others,
    "collision": lambda d: bp.count([d["signal"], d["twin"]]),
    "missing key": wrong_keys(),
    "other key": wrong_keys("other"),
    "too many keys": wrong_keys("wrong", "other"),
    "wait without a group": lambda d: bps.wait("nobody"),
    "wait with a timeout": lambda d: bps.wait("nobody", timeout=1.0),
}


def outcome(RE: RunEngine, plan: Callable[[dict[str, Any]], Any]) -> Any:
    """Give the documents and what became of the plan, comparable."""
    canonical = Canonical(Path("/nowhere"))
    documents: list[Any] = []
    token = RE.subscribe(lambda name, document: documents.append((name, document)))
    error: list[str] = []
    value: Any = None
    try:
        value = canonical(RE(plan(devices())).plan_result)
    except Exception as caught:  # noqa: BLE001  # compared
        error = [type(caught).__name__, canonical(str(caught))]
    RE.unsubscribe(token)
    return canonical(documents), str(value), error, RE._exit_status


@pytest.fixture
def pristine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """bluesky as it was installed; what a test changes is taken back."""
    mine: dict[str, Any] = {}
    with withdrawn():
        monkeypatch.setattr(_accelerate, "_in_process", mine)
        yield
        for replacement, stock in reversed([pair for pairs in mine.values() for pair in pairs]):
            setattr(replacement.owner, replacement.name, stock)


@pytest.fixture
def expected(pristine: None) -> dict[str, Any]:
    """What the stock RunEngine does."""
    with running_engine() as RE:
        return {name: outcome(RE, plan) for name, plan in PLANS.items()}


@pytest.mark.parametrize("names", [*((name,) for name in ALL), ALL], ids=[*ALL, "all"])
def test_documents_results_and_errors_are_those_of_the_stock_engine(
    names: tuple[str, ...], expected: dict[str, Any]
) -> None:
    with running_engine() as RE:
        assert accelerate(RE, only=names) == set(names)
        for name, plan in PLANS.items():
            assert outcome(RE, plan) == expected[name], name
    assert expected["failure"][2][0] == "FailedStatus"
    assert expected["collision"][2][0] == "ValueError"
    assert {expected[name][2][0] for name in ("missing key", "other key", "too many keys")} <= {
        "KeyError",
        "EventModelValidationError",
    }


@pytest.mark.parametrize("name", ALL)
def test_every_acceleration_keeps_off_another_version_and_says_so(
    name: str, pristine: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_acceleration, "KNOWN", {"bluesky": frozenset({"1.13.0"})})
    with running_engine() as RE, caplog.at_level(logging.INFO):
        assert accelerate(RE, only=[name]) == frozenset()
    assert f"{name!r}: it is not known to fit bluesky" in caplog.text


def test_an_acceleration_keeps_off_what_somebody_else_replaced(
    pristine: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def create(self: Any, msg: Any) -> None:
        """Somebody else's."""

    monkeypatch.setattr(bundlers.RunBundler, "create", create)
    with running_engine() as RE, caplog.at_level(logging.INFO):
        assert accelerate(RE) == set(ALL) - {"collisions"}
    assert "RunBundler.create is not what it was written for" in caplog.text


def test_what_holds_for_the_process_is_taken_back_while_it_is_withdrawn(pristine: None) -> None:
    stock = Plan.__init__, type(protocols.Readable), _set_span_msg_attributes
    with running_engine() as RE:
        accelerate(RE)
        assert Plan.__init__ is not stock[0]
        assert type(protocols.Readable) is not stock[1]
        with withdrawn():
            assert (Plan.__init__, type(protocols.Readable)) == stock[:2]
        assert Plan.__init__ is not stock[0]


def test_a_second_call_adds_what_is_missing_and_nothing_twice(pristine: None) -> None:
    with running_engine() as RE:
        assert accelerate(RE, only=["wait"]) == {"wait"}
        wait = RE._command_registry["wait"]
        assert accelerate(RE) == set(ALL)
        assert RE._command_registry["wait"] is wait


def test_commands_print_the_same_help(pristine: None) -> None:
    with running_engine() as RE:
        texts: list[str] = []
        for _ in range(2):
            texts.append(RE.print_command_registry(verbose=True))
            accelerate(RE)
        assert texts[0] == texts[1] != ""


def test_a_plan_that_is_never_iterated_still_warns_with_its_line(pristine: None) -> None:
    with running_engine() as RE:
        accelerate(RE, only=["stacks"])
    with pytest.warns(
        RuntimeWarning, match=r"test_accelerations.py\", line \d+, in test_a_plan(.|\n)*`sleep` was never"
    ):
        bps.sleep(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [msg.command for msg in bps.sleep(1)] == ["sleep"]


def test_protocols_are_told_by_the_same_rules(pristine: None) -> None:
    class Blocked(SynAxis):
        trigger = None

    class ByInstance:
        def __init__(self) -> None:
            self.stop = lambda: None

    class Nominal(protocols.Stoppable):
        def stop(self, success: bool = True) -> None:
            """Nothing moves."""

    things = [*devices().values(), Blocked(name="b"), ByInstance(), Nominal(), AsyncDetector(), object(), Device]
    checked = [each for each in vars(protocols).values() if getattr(each, "_is_runtime_protocol", False)]
    stock = [[isinstance(thing, each) for thing in things] for each in checked]
    with running_engine() as RE:
        accelerate(RE, only=["protocols"])
    assert [[isinstance(thing, each) for thing in things] for each in checked] == stock
    assert any(any(row) and not all(row) for row in stock)


def test_a_setting_names_accelerations_or_leaves_some_out() -> None:
    assert chosen("all") == set(ALL)
    assert chosen("none") == chosen("") - set(ALL) == frozenset()
    assert chosen("wait, state") == {"wait", "state"}
    assert chosen("-wait") == chosen("all,-wait") == set(ALL) - {"wait"}
    with pytest.raises(SettingsError, match="no acceleration 'wat'"):
        chosen("wat")
