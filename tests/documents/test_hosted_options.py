"""Options of hosted callbacks: as their parameters are annotated, or refused by name."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from bec_bluesky.documents import Document, Emit, RunCallback
from bec_bluesky.documents._host import make_callback
from bec_bluesky.errors import SettingsError
from bec_bluesky.plugins import Hosted


class Choosy(RunCallback):
    """Takes options of several types."""

    def __init__(
        self,
        *,
        emit: Emit | None = None,
        directory: str | Path = "",
        rate: float = 1.0,
        follow: bool = True,
        names: Iterable[str] = (),
        after: Iterable[dict[str, Any]] = (),
        other: object = None,
    ) -> None:
        super().__init__(emit=emit)
        self.taken = (directory, rate, follow, names, after, other)

    def open_run(self, start: Document) -> None:
        return None


def made(**options: Any) -> Choosy:
    hosted = Hosted(name="choosy", use=f"{__name__}:Choosy", process="live")
    callback = make_callback(hosted, options, lambda product: None)
    assert isinstance(callback, Choosy)
    return callback


def test_options_come_as_they_are_annotated() -> None:
    options = {"directory": "x", "rate": 2, "follow": "no", "names": ["a", "b"], "after": [{"copy_to": "y"}]}
    assert made(**options, other=[1]).taken == ("x", 2.0, False, ["a", "b"], [{"copy_to": "y"}], [1])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rate": "20 GB"}, "option rate = '20 GB': Input should be a valid number"),
        ({"follow": "perhaps"}, "option follow = 'perhaps': Input should be a valid boolean"),
        ({"names": ["a", 3]}, r"option names\[1\] = .*valid string"),
        ({"after": ["copy"]}, r"option after\[0\] = .*valid dictionary"),
        ({"folow": True}, "has no option 'folow'"),
    ],
)
def test_an_option_of_another_type_is_refused_by_name(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        made(**options)
