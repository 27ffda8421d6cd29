"""Why a plan failed, when cleaning up fails as well."""

import pytest
from bluesky.utils import FailedStatus

from bec_bluesky.errors import DeviceServerLost
from bec_bluesky.messages.queue import ItemResult, QueueItem
from bec_bluesky.scan_server.worker._cause import cause_of


def test_cleaning_up_after_a_lost_server_does_not_hide_what_was_lost() -> None:
    with pytest.raises(DeviceServerLost) as caught:
        try:
            raise FailedStatus from DeviceServerLost("it gave no sign of life")
        except FailedStatus:
            raise DeviceServerLost("nobody received the instruction, nothing was done")  # noqa: B904  # as in clean-up
    assert cause_of(caught.value) == "it gave no sign of life"


def test_the_only_loss_is_the_cause() -> None:
    with pytest.raises(DeviceServerLost) as caught:
        try:
            raise KeyError("nothing to do with it")
        except KeyError:
            raise DeviceServerLost("nobody received the instruction")  # noqa: B904  # without a cause
    assert cause_of(caught.value) == "nobody received the instruction"


def test_an_item_at_a_prompt_is_one_line_with_the_reason() -> None:
    result = ItemResult(exit_status="failed", reason="samx is stuck", traceback="Traceback\n  File")
    assert (
        repr(QueueItem(item_id="ab12", plan="scan", state="done", result=result))
        == "<scan ab12: failed, samx is stuck>"
    )
    assert repr(QueueItem(item_id="ab12", plan="scan")) == "<scan ab12: waiting>"
