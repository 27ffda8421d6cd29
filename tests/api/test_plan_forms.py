"""Forms of all plans are JSON schemas that accept what the plans do, and refuse what they don't."""

from typing import Any

import jsonschema
import pytest

from bec_bluesky.api._plan_forms import form_of
from bec_bluesky.messages.devices import DeviceInfo
from bec_bluesky.messages.queue import PlanInfo
from bec_bluesky.scan_server.worker._plans import PlanRegistry
from bec_bluesky.settings import load


@pytest.fixture(scope="module")
def plans() -> dict[str, PlanInfo]:
    registry = PlanRegistry()
    registry.load(load(), {})
    return {info.name: info for info in registry.infos}


def device(name: str, *protocols: str, parent: str | None = None, enabled: bool = True) -> DeviceInfo:
    facts: dict[str, Any] = {"protocols": list(protocols), "parent": parent, "enabled": enabled}
    return DeviceInfo(name=name, path=name, server="local", state="connected", **facts)


DEVICES = {
    each.path: each
    for each in (
        device("det", "Readable", "Triggerable"),
        device("samx", "Readable", "Movable", "NamedMovable"),
        device("samx.velocity", "Readable", "Movable", parent="samx"),
        device("samz", "Readable", "Movable", "NamedMovable", enabled=False),
    )
}


def accepts(form: dict[str, Any], **arguments: Any) -> bool:
    return jsonschema.Draft202012Validator(form).is_valid(arguments)


def test_every_plan_has_a_form_that_is_a_schema(plans: dict[str, PlanInfo]) -> None:
    assert len(plans) > 20
    for plan in plans.values():
        form = form_of(plan, DEVICES)
        jsonschema.Draft202012Validator.check_schema(form)
        filled = {name: each["default"] for name, each in form["properties"].items() if "default" in each}
        bare = form | {"required": []}
        assert accepts(bare, **filled), (plan.name, filled)


def test_a_form_says_what_is_needed_and_what_fits(plans: dict[str, PlanInfo]) -> None:
    line = form_of(plans["line_scan"], DEVICES)
    assert line["properties"]["settle"]["minimum"] == 0
    assert line["properties"]["settle"]["x-units"] == "s"
    good = {"detectors": ["det"], "motor": "samx", "start": -1, "stop": 1.5, "num": 3}
    assert accepts(line, **good)
    assert not accepts(line, **(good | {"num": 0}))
    assert not accepts(line, **(good | {"nmu": 3}))
    assert not accepts(line, detectors=["det"])
    assert line["properties"]["motor"]["examples"] == ["samx"]
    grid = form_of(plans["grid"], DEVICES)
    axes = next(each for each in grid["properties"].values() if "x-group" in each)
    assert [each["title"] for each in axes["x-group"]["of"]] == ["motor", "start", "stop", "num"]
    assert "per_step" not in form_of(plans["scan"], DEVICES)["properties"]
