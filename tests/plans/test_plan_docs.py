"""What the documents say of plans is so: the example runs, and every plan of ours is in the table."""

import re
from pathlib import Path
from typing import Any

from bluesky import RunEngine
from ophyd.sim import hw

from bec_bluesky.scan_server.worker._describe import describe
from bec_bluesky.scan_server.worker._plans import PlanRegistry
from bec_bluesky.settings import Settings
from tests.plans.conftest import Documents, events

DOCS = Path(__file__).parents[2] / "docs"


def test_the_example_of_a_plan_runs_in_a_bare_engine_and_is_described_as_the_page_says(
    RE: RunEngine, documents: Documents
) -> None:
    text = (DOCS / "how-to" / "write-a-plan.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", text, re.S)
    assert example is not None
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(example.group(1), namespace)
    accepts = {each.name: each.accepts for each in describe("slow_line", namespace["slow_line"]).parameters}
    assert accepts["detectors"] == {"kind": "list", "of": {"kind": "device", "protocols": ["Readable"]}}
    assert accepts["num"] == {"kind": "integer", "min": 2, "max": 1000}
    assert accepts["rest"] == {"kind": "number", "units": "s", "min": 0}
    assert accepts["way"] == {"kind": "choice", "values": ["there", "back"]}
    devices = hw()
    RE(namespace["slow_line"]([devices.det], devices.motor, 0, 2, 3, rest=0, way="back"))
    assert [each["motor"] for each in events(documents)] == [2, 1, 0]


def test_every_plan_of_ours_is_in_the_reference_and_every_one_there_is_offered(settings: Settings) -> None:
    registry = PlanRegistry()
    registry.load(settings, {})
    ours = {name for name, plan in registry.items() if plan.info.module.startswith("plans.")}
    text = (DOCS / "reference" / "plans.md").read_text(encoding="utf-8")
    table = text.partition("| Plan | What it does |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == ours
    drawings = set(re.findall(r"\]\((plans/\w+\.svg)\)", text))
    assert drawings == {f"plans/{path.name}" for path in (DOCS / "reference" / "plans").glob("*.svg")}
