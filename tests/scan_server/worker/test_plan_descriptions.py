"""Plans as data: every plan of bluesky, ours, and what annotations and docstrings say."""

import collections.abc
import enum
from pathlib import Path
from typing import Annotated, Any, Literal

import bluesky.plan_stubs
import bluesky.plans
import pytest
from annotated_types import Ge, Lt, Unit
from bluesky.protocols import Movable, NamedMovable, Readable
from bluesky_queueserver import parameter_annotation_decorator
from pydantic import Field

from bec_bluesky.errors import BadArgumentError, UnknownDeviceError, UnknownPlanError
from bec_bluesky.messages import decoder, encode
from bec_bluesky.messages.queue import PlanInfo, QueueItem
from bec_bluesky.scan_server._accepts import mismatch, type_at
from bec_bluesky.scan_server.worker._annotations import accepts_of
from bec_bluesky.scan_server.worker._arguments import bind
from bec_bluesky.scan_server.worker._describe import describe
from bec_bluesky.scan_server.worker._plans import OfferedPlan, PlanRegistry
from bec_bluesky.settings import Settings
from tests.scan_server.worker.worker_bench import make_profile

DEVICE = {"kind": "device", "protocols": ["Movable"]}


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@pytest.fixture
def registry(settings: Settings) -> PlanRegistry:
    registry = PlanRegistry()
    registry.load(settings, {})
    return registry


def test_every_public_plan_of_bluesky_is_described_and_its_description_crosses(registry: PlanRegistry) -> None:
    assert registry.problems == []
    for name in ("count", "scan", "rel_scan", "grid_scan", "list_scan", "spiral_fermat", "tune_centroid", "fly"):
        info = registry[name].info
        assert info.module == "bluesky.plans"
        assert info.summary
    infos = registry.infos
    assert decoder(list[PlanInfo]).decode(encode(infos)) == infos
    assert len([info for info in infos if info.module == bluesky.plans.__name__]) > 20


@pytest.mark.parametrize(
    ("annotation", "accepts"),
    [
        (float, {"kind": "number"}),
        (int | None, {"kind": "any_of", "of": [{"kind": "integer"}, {"kind": "nothing"}]}),
        (bool, {"kind": "boolean"}),
        (Movable | Any, {"kind": "any_of", "of": [DEVICE, {"kind": "any"}]}),
        (NamedMovable, DEVICE),
        (
            collections.abc.Sequence[Readable],
            {"kind": "list", "of": {"kind": "device", "protocols": ["Readable"]}},
        ),
        (list[int], {"kind": "list", "of": {"kind": "integer"}}),
        (tuple[float, ...], {"kind": "list", "of": {"kind": "number"}}),
        (dict[str, Any], {"kind": "mapping"}),
        (Literal["a", "b"], {"kind": "choice", "values": ["a", "b"]}),
        (Colour, {"kind": "choice", "values": ["red", "blue"]}),
        (collections.abc.Callable[[int], int], {"kind": "callable"}),
        (Annotated[float, Unit("mm"), Ge(0), Lt(5)], {"kind": "number", "units": "mm", "min": 0, "below": 5}),
        (Annotated[int, "how many"], {"kind": "integer", "text": "how many"}),
        (Any, {"kind": "any"}),
        ("Unknown", {"kind": "any"}),
    ],
)
def test_an_annotation_becomes_data(annotation: Any, accepts: dict[str, Any]) -> None:
    assert accepts_of(annotation) == accepts


def test_what_is_not_annotated_is_not_described(registry: PlanRegistry) -> None:
    def plan(motor, *, gain=2):
        """Do it."""
        yield

    first, second = describe("plan", plan).parameters
    assert (first.accepts, first.has_default) == (None, False)
    assert (second.accepts, second.default, second.kind) == (None, "2", "keyword_only")


def test_defaults_are_told_as_data_where_they_have_such_a_form() -> None:
    def plan(a=2.5, b=(1, "x"), c=Colour.RED, d=print, e=float("inf"), f=None, *, g={"k": [1]}):  # noqa: B006
        yield

    told = {each.name: (each.default, each.default_value) for each in describe("plan", plan).parameters}
    assert told["a"] == ("2.5", 2.5)
    assert told["b"] == ("(1, 'x')", [1, "x"])
    assert told["c"] == ("'red'", "red")
    assert told["d"] == ("<built-in function print>", None)
    assert told["e"] == ("inf", None)
    assert told["f"] == ("None", None)
    assert told["g"] == ("{'k': [1]}", {"k": [1]})


def test_units_texts_and_groups_of_our_own_plans_are_told(registry: PlanRegistry) -> None:
    line = {parameter.name: parameter for parameter in registry["line_scan"].info.parameters}
    assert line["settle"].accepts == {"kind": "number", "units": "s", "min": 0}
    assert line["num"].accepts == {"kind": "integer", "min": 1}
    assert line["start"].text == "First position, in the motor's units."
    axes = next(parameter for parameter in registry["grid"].info.parameters if parameter.kind == "var_positional")
    assert axes.accepts is not None
    assert [each["name"] for each in axes.accepts["of"]] == ["motor", "start", "stop", "num"]
    motor = {parameter.name: parameter for parameter in registry["fly_scan"].info.parameters}["motor"]
    assert motor.accepts == {"kind": "any_of", "of": [DEVICE, {"kind": "nothing"}]}


def test_a_module_that_fails_is_reported_and_costs_nothing_else(settings: Settings, tmp_path: Path) -> None:
    profile = make_profile(tmp_path / "p", "def fine():\n    yield\n")
    (profile / "profile_collection" / "startup" / "20-broken.py").write_text("import no_such_module\n")
    registry = PlanRegistry()
    registry.load(settings.with_(profile=profile), {})
    [problem] = registry.problems
    assert "20-broken.py failed: ModuleNotFoundError" in problem
    assert "fine" in registry
    assert "count" in registry


def test_startup_files_share_a_namespace_and_their_imports_are_not_offered(settings: Settings, tmp_path: Path) -> None:
    profile = make_profile(tmp_path / "p", "from bluesky.plan_stubs import null\nGAIN = 3\n")
    later = "def gained(value: float = GAIN):\n    yield from null()\ndef _private():\n    yield\n"
    (profile / "profile_collection" / "startup" / "20-later.py").write_text(later)
    registry = PlanRegistry()
    registry.load(settings.with_(profile=profile), {})
    assert registry["gained"].info.parameters[0].default == "3"
    assert "null" not in registry
    assert "_private" not in registry


def test_an_unknown_plan_is_told_with_its_neighbours(registry: PlanRegistry) -> None:
    with pytest.raises(UnknownPlanError, match="did you mean 'grid_scan'"):
        registry["gird_scan"]


# ── arguments ─────────────────────────────────────────────────────────────────────────────────────

DEVICES = {"samx": object(), "samy": object(), "det": object(), "samx.velocity": object()}


def _bound(registry: PlanRegistry, plan: str, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    item = QueueItem(item_id="1", plan=plan, args=list(args), kwargs=kwargs)
    return bind(registry[plan], item, DEVICES)


def test_names_become_devices_where_devices_are_accepted(registry: PlanRegistry) -> None:
    args, _ = _bound(registry, "scan", ["det"], "samx", -1, 1, "samy", 0, 2, 11)
    assert args == ([DEVICES["det"]], DEVICES["samx"], -1, 1, DEVICES["samy"], 0, 2, 11)
    args, _ = _bound(registry, "mv", "samx.velocity", 3)
    assert args == (DEVICES["samx.velocity"], 3)
    args, _ = _bound(registry, "mv", "samx", "samy")
    assert args == (DEVICES["samx"], "samy")  # a word of an enumeration
    _, kwargs = _bound(registry, "count", detectors=["det"], md={"sample": "samx"})
    assert kwargs == {"md": {"sample": "samx"}}  # a metadata value is no device


def test_a_text_stays_a_text_where_the_plan_wants_one(registry: PlanRegistry) -> None:
    args, _ = _bound(registry, "adaptive_scan", ["det"], "det", "samx", -1, 1, 0.1, 0.5, 0.2, True)
    assert args[1] == "det"
    assert args[2] is DEVICES["samx"]


def test_in_an_unannotated_parameter_every_device_name_becomes_the_device() -> None:
    def plan(what, note=None):
        yield

    offered = OfferedPlan(plan, describe("plan", plan))
    item = QueueItem(item_id="1", plan="plan", args=[{"a": ["samx", 3]}], kwargs={"note": "text"})
    args, _ = bind(offered, item, DEVICES)
    assert args == ({"a": [DEVICES["samx"], 3]}, "text")


def test_a_plan_gets_the_members_of_an_enumeration_for_their_values() -> None:
    def plan(colour: Colour, other: Colour | None = None, text: str = "red"):
        yield

    offered = OfferedPlan(plan, describe("plan", plan))
    item = QueueItem(item_id="1", plan="plan", args=["red"], kwargs={"other": "blue", "text": "red"})
    assert bind(offered, item, DEVICES) == ((Colour.RED, Colour.BLUE, "red"), {})
    item = QueueItem(item_id="1", plan="plan", args=["red", None])
    assert bind(offered, item, DEVICES) == ((Colour.RED, None), {})


def test_unknown_devices_and_wrong_calls_name_plan_and_argument(registry: PlanRegistry) -> None:
    with pytest.raises(UnknownDeviceError, match=r"scan, argument 'args': no device 'samz': did you mean"):
        _bound(registry, "scan", ["det"], "samz", -1, 1, 11)
    with pytest.raises(BadArgumentError, match=r"count: missing a required argument: 'detectors'; it is count\("):
        _bound(registry, "count")


# ── the algebra ───────────────────────────────────────────────────────────────────────────────────


def test_groups_repeat_and_what_follows_them_comes_last() -> None:
    group = {"kind": "group", "of": [DEVICE, {"kind": "number"}, {"kind": "number"}], "then": [{"kind": "integer"}]}
    kinds = [(type_at(group, index, 7) or {})["kind"] for index in range(7)]
    assert kinds == ["device", "number", "number", "device", "number", "number", "integer"]


@pytest.mark.parametrize(
    ("value", "accepts", "why"),
    [
        ("samx", DEVICE, None),
        ("nobody", DEVICE, "there is no device 'nobody'"),
        ("det", DEVICE, "device 'det' is not Movable"),
        (3, {"kind": "number", "min": 0}, None),
        (-3, {"kind": "number", "min": 0, "units": "s"}, "-3 is not a number of at least 0 s"),
        (True, {"kind": "integer"}, "True is no number"),
        (2.5, {"kind": "integer"}, "2.5 is no whole number"),
        (2.0, {"kind": "integer"}, None),
        ("5", {"kind": "number"}, "'5' is no number"),
        (["det", 1], {"kind": "list", "of": {"kind": "device"}}, "1 is no device name (number 2 of the list)"),
        (None, {"kind": "any_of", "of": [{"kind": "number"}, {"kind": "nothing"}]}, None),
        ("x", {"kind": "any_of", "of": [{"kind": "number"}, {"kind": "nothing"}]}, "'x' is not a number or nothing"),
        ("c", {"kind": "choice", "values": ["a", "b"]}, "'c' is not one of 'a', 'b'"),
        (float("nan"), {"kind": "number", "max": 5}, "nan is not a number up to 5"),
    ],
)
def test_a_value_that_does_not_fit_is_told_why(value: Any, accepts: dict[str, Any], why: str | None) -> None:
    protocols = {"samx": ["Movable", "Readable"], "det": ["Readable"]}
    assert mismatch(value, accepts, protocols.get) == why


# ── texts, and what bluesky-queueserver's decorator says ──────────────────────────────────────────


def test_texts_of_parameters_are_read_from_docstrings_in_three_layouts() -> None:
    def google(motor, *args, gain=2):
        """Do it.

        Args:
            motor (Movable): What moves,
                slowly.
            *args: Positions: where to.
            gain (float):
                Of the amplifier.

        Returns:
            nothing: at all
        """
        yield

    def sphinx(motor, *args, gain=2):
        """Do it.

        :param Movable motor: What moves,
            slowly.
        :param args: Positions: where to.
        :param gain: Of the amplifier.
        :returns: nothing at all
        """
        yield

    def numpy(motor, *args, gain=2):
        """Do it.

        Parameters
        ----------
        motor : Movable
            What moves,
            slowly.
        *args
            Positions: where to.
        gain : float
            Of the amplifier.

        Returns
        -------
        nothing : at all
        """
        yield

    for plan in (google, sphinx, numpy):
        texts = {parameter.name: parameter.text for parameter in describe("plan", plan).parameters}
        assert texts == {
            "motor": "What moves, slowly.",
            "args": "Positions: where to.",
            "gain": "Of the amplifier.",
        }, plan.__name__


def test_what_the_peer_s_decorator_says_goes_before_the_signature() -> None:
    said = {
        "description": "Move, then count.",
        "parameters": {
            "motors": {
                "description": "What moves.",
                "annotation": "typing.List[Motors]",
                "devices": {"Motors": ["motor1", "motor2"]},
            },
            "detectors": {"annotation": "List[Detectors]", "devices": {"Detectors": ["det1", ":^det.*"]}},
            "positions": {"annotation": "typing.List[float]", "min": -10, "max": 10, "step": 0.01},
            "mode": {"annotation": "Modes", "enums": {"Modes": ["fast", "slow"]}, "default": "slow"},
            "where": {"annotation": "typing.Optional[__MOVABLE__]"},
            "then": {"annotation": "Plans", "plans": {"Plans": ["count", "scan"]}},
        },
    }

    @parameter_annotation_decorator(said)
    def plan(motors, detectors=None, positions=None, mode="fast", where=None, then="count"):
        yield

    info = describe("plan", plan)
    nothing = {"kind": "nothing"}
    assert {parameter.name: parameter.accepts for parameter in info.parameters} == {
        "motors": {"kind": "list", "of": {"kind": "device", "protocols": [], "names": ["motor1", "motor2"]}},
        "detectors": {
            "kind": "any_of",
            "of": [{"kind": "list", "of": {"kind": "device", "protocols": []}}, nothing],
        },
        "positions": {
            "kind": "any_of",
            "of": [{"kind": "list", "of": {"kind": "number", "min": -10, "max": 10, "step": 0.01}}, nothing],
        },
        "mode": {"kind": "choice", "values": ["fast", "slow"]},
        "where": {"kind": "any_of", "of": [DEVICE, nothing]},
        "then": {"kind": "choice", "values": ["count", "scan"]},
    }
    assert info.summary == "Move, then count."
    assert info.parameters[0].text == "What moves."
    assert info.parameters[3].default == "'slow'"
    assert info.properties["parameter_annotation"]["parameters"]["mode"]["default"] == "slow"


def test_a_device_may_be_asked_for_by_label_and_pydantic_s_fields_count() -> None:
    labelled = accepts_of(Annotated[Movable, {"labels": ["motors"]}])
    assert labelled == DEVICE | {"labels": ["motors"]}
    assert accepts_of(Annotated[list[float] | None, Ge(0), Unit("mm")]) == {
        "kind": "any_of",
        "of": [{"kind": "list", "of": {"kind": "number", "min": 0, "units": "mm"}}, {"kind": "nothing"}],
    }
    assert accepts_of(Annotated[float, Field(ge=0, lt=5, description="how long")]) == {
        "kind": "number",
        "min": 0,
        "below": 5,
        "text": "how long",
    }
