"""An error that crossed is the class it was, and says where it happened."""

import pytest
from ophyd.utils import LimitError

from bec_bluesky.errors import DeviceDisconnected, DeviceTimeout, RemoteError, UnknownPlanError
from bec_bluesky.messages.failures import raised, tell


class Peculiar(Exception):
    """A class that the other side does not know."""


@pytest.mark.parametrize("error", [ValueError("v"), TimeoutError("t"), LimitError("l"), ZeroDivisionError("z")])
def test_known_classes_are_raised_again_with_device_and_server(error: Exception) -> None:
    back = raised(tell(error, device="samx", where="device server main"))
    assert type(back) is type(error)
    assert str(back) == f"{error} [samx on device server main]"


def test_an_unknown_class_becomes_a_remote_error_that_names_it() -> None:
    back = raised(tell(Peculiar("odd"), device="samx"))
    assert isinstance(back, RemoteError)
    assert str(back) == "Peculiar: odd [samx]" and back.kind.endswith("Peculiar")


@pytest.mark.parametrize("cls", [DeviceDisconnected, DeviceTimeout])
def test_an_error_that_is_two_builtins_crosses_too(cls: type[Exception]) -> None:
    back = raised(tell(cls("gone"), device="samx"))
    assert type(back) is cls and str(back) == "gone [samx]"


def test_a_refusal_keeps_its_code_and_its_sentence() -> None:
    back = raised(tell(UnknownPlanError("grdi", ["grid"]), where="scan server"))
    assert isinstance(back, UnknownPlanError)
    assert back.code == "unknown_plan" and str(back) == "No plan 'grdi': did you mean 'grid'?"


def test_the_other_side_s_traceback_is_a_note() -> None:
    try:
        raise ValueError("here")
    except ValueError as error:
        back = raised(tell(error))
    assert any("test_failures.py" in note for note in back.__notes__)
