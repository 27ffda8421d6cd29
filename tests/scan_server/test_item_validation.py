"""What is refused before anything is queued, and in which words."""

from typing import Any

import pytest

from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.devices import DeviceInfo
from bec_bluesky.messages.queue import AddItem, Parameter, PlanInfo
from bec_bluesky.scan_server._accepts import mismatch
from bec_bluesky.scan_server._metadata import MetadataRules
from bec_bluesky.scan_server._validation import place_of, validate

MOVABLE = {"kind": "device", "protocols": ["Movable"], "name": "motor"}
NUMBER = {"kind": "number"}
COUNT = {"kind": "any_of", "of": [{"kind": "integer", "min": 1}, {"kind": "nothing"}]}
DETECTORS = {"kind": "list", "of": {"kind": "device", "protocols": ["Readable"]}}
LINE = {
    "kind": "group",
    "of": [MOVABLE, NUMBER | {"name": "start"}, NUMBER | {"name": "stop"}],
    "then": [{"kind": "integer", "name": "num"}],
}


def parameter(name: str, kind: Any, accepts: Any = None, *, default: str | None = None) -> Parameter:
    return Parameter(name=name, kind=kind, accepts=accepts, has_default=default is not None, default=default or "")


PLANS = {
    plan.name: plan
    for plan in (
        PlanInfo(
            name="scan",
            module="bluesky.plans",
            parameters=[
                parameter("detectors", "positional_or_keyword", DETECTORS),
                parameter("args", "var_positional", LINE),
                parameter("num", "keyword_only", COUNT, default="None"),
                parameter("per_step", "keyword_only", {"kind": "callable"}, default="None"),
            ],
        ),
        PlanInfo(
            name="move",
            module="m",
            parameters=[
                parameter("motor", "positional_only", MOVABLE),
                parameter("to", "positional_or_keyword", NUMBER | {"min": -5, "max": 5, "units": "mm"}),
                parameter("mode", "keyword_only", {"kind": "choice", "values": ["fast", "slow"]}, default="'fast'"),
            ],
        ),
        PlanInfo(name="loose", module="m", parameters=[parameter("options", "var_keyword")]),
    )
}


def device(path: str, *protocols: str, **facts: Any) -> DeviceInfo:
    facts = {"name": path.replace(".", "_"), "state": "connected", "parent": None} | facts
    return DeviceInfo(path=path, server="main", protocols=list(protocols), **facts)


DEVICES = {
    each.path: each
    for each in (
        device("samx", "Readable", "Movable"),
        device("samy", "Readable", "Movable"),
        device("samx.velocity", "Readable", "Movable", parent="samx"),
        device("det", "Readable"),
        device("far", state="failed", reason="no IOC answers"),
        device("off", "Readable", "Movable", enabled=False),
    )
}


def asked(plan: str, *args: Any, metadata: dict[str, Any] | None = None, **kwargs: Any) -> AddItem:
    return AddItem(plan=plan, args=list(args), kwargs=kwargs, metadata=metadata or {})


@pytest.mark.parametrize(
    "item",
    [
        asked("scan", ["det"], "samx", -1, 1.5, num=3),
        asked("scan", ["det"], "samx", -1, 1, 11),
        asked("scan", ["det", "samy"], "samx", -1, 1, "samy", 0, 2, num=3),
        asked("scan", [], "samx.velocity", 1, 2, num=None),
        asked("move", "samx", to=5, mode="slow"),
        asked("move", "samx", -5.0),
        asked("loose", anything=["samx", {"deep": "det"}]),
        asked("move", "samx", 0, metadata={"sample": "CuO"}),
    ],
)
def test_what_fits_is_accepted(item: AddItem) -> None:
    validate(item, PLANS, DEVICES)


@pytest.mark.parametrize(
    ("item", "code", "text"),
    [
        (asked("scna"), "unknown_plan", "No plan 'scna': did you mean 'scan'"),
        (asked("scan"), "bad_argument", "scan: 1 argument is missing: detectors"),
        (asked("move"), "bad_argument", "move: 2 arguments are missing: motor, to"),
        (asked("move", "samx", 1, 2), "bad_argument", "move: 3 positional arguments are too many: it takes motor, to"),
        (asked("move", "samx", 1, to=2), "bad_argument", "move: argument 'to' is given twice"),
        (asked("move", "samx", 1, mood="x"), "bad_argument", "move: no argument 'mood': did you mean 'mode'"),
        (asked("move", motor="samx", to=1), "bad_argument", "move: no argument 'motor': there are mode, to"),
        (asked("scan", ["det"]), "bad_argument", "scan: *args takes motor, start, stop, again and again: 0 values"),
        (asked("scan", ["det"], "samx", 1), "bad_argument", "2 values do not come out even"),
        (asked("scan", ["det"], "samx", 1, 2, "samy", 3), "bad_argument", "5 values do not come out even"),
        (asked("scan", "det", "samx", 0, 1), "bad_argument", "scan, argument 'detectors': 'det' is no list"),
        (asked("scan", ["det"], "samx", "a", 1), "bad_argument", "scan, number 2 of *args (start): 'a' is no number"),
        (asked("scan", ["det"], "samx", True, 1), "bad_argument", "(start): True is no number"),
        (asked("scan", ["det"], "samx", 0, 1, num=0), "bad_argument", "scan, argument 'num': 0 is not"),
        (asked("scan", ["det"], "samx", 0, 1, num=2.5), "bad_argument", "scan, argument 'num': 2.5 is not"),
        (asked("scan", ["det"], "det", 0, 1), "bad_argument", "number 1 of *args (motor): device 'det' is not Movable"),
        (asked("scan", ["det"], 5, 0, 1), "bad_argument", "number 1 of *args (motor): 5 is no device name"),
        (asked("scan", ["det"], "samz", 0, 1), "unknown_device", "no device 'samz': did you mean 'samy' or 'samx'"),
        (asked("scan", ["dte"], "samx", 0, 1), "unknown_device", "scan, argument 'detectors': no device 'dte'"),
        (asked("scan", ["det"], "samx", 0, 1, per_step="f"), "bad_argument", "cannot be given from outside"),
        (asked("scan", ["det"], "far", 0, 1), "device_unavailable", "'far' on main has failed: no IOC answers"),
        (asked("move", "off", 0), "device_unavailable", "move, argument 'motor': device 'off' on main is disabled"),
        (asked("loose", x=[{"y": "off"}]), "device_unavailable", "loose, argument 'x': device 'off' on main"),
        (
            asked("move", "samx", 6),
            "bad_argument",
            "move, argument 'to': 6 is not a number of at least -5 and up to 5 mm",
        ),
        (asked("move", "samx", 0, mode="wild"), "bad_argument", "'wild' is not one of 'fast', 'slow'"),
        (asked("move", "samx", 0, metadata={"uid": "1"}), "bad_argument", "move: metadata may not contain uid"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(item: AddItem, code: str, text: str) -> None:
    with pytest.raises(RefusedError) as refused:
        validate(item, PLANS, DEVICES)
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.code == code


# ── metadata ──────────────────────────────────────────────────────────────────────────────────────

SCHEMA = {
    "type": "object",
    "required": ["proposal", "operator"],
    "properties": {
        "proposal": {"type": "string", "pattern": "^p[0-9]{5}$", "description": "as the user office gave it: p12345"},
        "energy": {"type": "number", "exclusiveMinimum": 0},
    },
}


def refused_metadata(item: AddItem, plan: str = "scan") -> str:
    with pytest.raises(RefusedError) as refused:
        MetadataRules(SCHEMA, {"operator": "eve"}).check(item, PLANS[plan])
    assert refused.value.code == "bad_metadata"
    return str(refused.value)


def test_metadata_that_miss_what_the_schema_requires_are_refused_with_its_words() -> None:
    why = refused_metadata(asked("scan", metadata={"sample": "CuO"}))
    assert why == "scan: metadata: 'proposal' is missing (as the user office gave it: p12345)"


def test_metadata_of_a_wrong_kind_are_refused_all_at_once() -> None:
    why = refused_metadata(asked("scan", metadata={"proposal": "12345", "energy": 0}))
    assert "energy: 0 is less than or equal to the minimum of 0" in why
    assert "proposal: '12345' does not match '^p[0-9]{5}$' (as the user office gave it: p12345)" in why


def test_what_the_profile_or_the_plan_s_own_argument_gives_counts() -> None:
    rules = MetadataRules(SCHEMA, {"operator": "eve"})
    rules.check(asked("scan", metadata={"proposal": "p12345"}), PLANS["scan"])
    rules.check(asked("scan", md={"proposal": "p12345"}), PLANS["scan"])


def test_without_a_schema_and_where_no_run_is_opened_anything_goes() -> None:
    MetadataRules({}, {}).check(asked("scan"), PLANS["scan"])
    MetadataRules(SCHEMA, {}).check(asked("mv"), PlanInfo(name="mv", module="bluesky.plan_stubs"))


def test_a_device_is_found_in_the_argument_that_names_it_or_its_parent() -> None:
    args = [["det"], "samy", 0, 1, "samx", 0, 1]
    assert place_of("samx.velocity", PLANS["scan"], args, {"num": 3}) == "number 4 of *args (motor)"
    assert place_of("det", PLANS["scan"], args, {"num": 3}) == "argument 'detectors'"
    assert place_of("shutter", PLANS["scan"], args, {"num": 3}) is None


def test_a_device_must_have_a_label_or_be_one_of_those_named() -> None:
    facts = {"samx": ["Movable", "label motors"], "det": ["Readable", "label detectors"]}
    labelled = {"kind": "device", "protocols": [], "labels": ["motors", "slits"]}
    assert mismatch("samx", labelled, facts.get) is None
    assert mismatch("det", labelled, facts.get) == "device 'det' is not labelled motors or slits"
    named = {"kind": "device", "protocols": [], "names": ["samx", "samy"]}
    assert mismatch("samx", named, facts.get) is None
    assert mismatch("det", named, facts.get) == "device 'det' is none of samx, samy"
