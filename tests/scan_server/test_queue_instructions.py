"""What instructions the queue takes, and what it says to others."""

from typing import Any

import pytest

from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.devices import DeviceInfo
from bec_bluesky.messages.queue import AddItem
from bec_bluesky.scan_server._instructions import check_instruction

DEVICES = {
    "ring": DeviceInfo(name="ring", path="ring", server="main", state="connected", methods=["read"]),
    "bell": DeviceInfo(name="bell", path="bell", server="main", state="connected", methods=["trigger"]),
}


def instruction(*args: Any, plan: str = "wait", **kwargs: Any) -> AddItem:
    return AddItem(plan=plan, kind="instruction", args=list(args), kwargs=kwargs)


@pytest.mark.parametrize(
    ("asked", "kwargs"),
    [
        (instruction(5), {"seconds": 5}),
        (instruction(seconds=0.5), {"seconds": 0.5}),
        (
            instruction(device="ring", above=1, below=2, timeout=3),
            {"device": "ring", "above": 1, "below": 2, "timeout": 3},
        ),
        (instruction(device="ring", equals="open"), {"device": "ring", "equals": "open"}),
        (instruction(plan="queue_stop"), {}),
    ],
)
def test_an_instruction_has_its_arguments_by_name(asked: AddItem, kwargs: dict[str, Any]) -> None:
    checked = check_instruction(asked, DEVICES)
    assert (checked.plan, checked.args, checked.kwargs) == (asked.plan, [], kwargs)


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        (instruction(plan="dance"), "unknown_instruction", "No instruction 'dance'"),
        (instruction(1, plan="queue_stop"), "bad_argument", "takes no arguments"),
        (instruction(), "bad_argument", "neither seconds nor a device"),
        (instruction(1, 2), "bad_argument", "too many arguments"),
        (instruction(-1), "bad_argument", "is negative"),
        (instruction("long"), "bad_argument", "is no number"),
        (instruction(seconds=float("nan")), "bad_argument", "is no number"),
        (instruction(seconds=1, loud=True), "bad_argument", "no argument 'loud'"),
        (instruction(device="ring"), "bad_argument", "for what of 'ring'"),
        (instruction(device="ring", above=True), "bad_argument", "is no number"),
        (instruction(device="rnig", above=1), "unknown_device", "rnig"),
        (instruction(device=["ring"], above=1), "unknown_device", "ring"),
        (instruction(device="bell", equals=1), "bad_argument", "cannot be read"),
        (instruction(timeout=1), "bad_argument", "neither seconds nor a device"),
    ],
)
def test_an_instruction_that_makes_no_sense_is_refused_with_the_reason(asked: AddItem, code: str, text: str) -> None:
    with pytest.raises(RefusedError, match=text) as refused:
        check_instruction(asked, DEVICES)
    assert refused.value.code == code
