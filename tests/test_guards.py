"""What `profile.toml` may say of guards, and what is said of mistakes."""

from typing import Any

import pytest

from bec_bluesky.errors import SettingsError
from bec_bluesky.guards import read_interlocks, read_suspenders


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"kind": "high"}, "signal is missing"),
        ({"signal": "s", "kind": "below"}, "kind = 'below' needs limit"),
        ({"signal": "s", "kind": "high", "limit": 3}, "limit means nothing to kind = 'high'"),
        ({"signal": "s", "kind": "below", "limit": 3, "resume_at": 2}, r"resume_at \(2\) must be at or above limit"),
        ({"signal": "s", "kind": "outside", "lowest": 3, "highest": 2}, "must be less than highest"),
        ({"signal": "s", "kind": "high", "slep": 3}, "no setting 'slep'"),
        ({"signal": "s", "kind": "high", "sleep": -1}, "sleep = -1"),
        ("high", r"\[\[suspenders\]\] number 1"),
    ],
)
def test_a_wrong_entry_is_told_with_its_remedy(entry: Any, text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        read_suspenders("profile.toml", [entry])


def test_two_entries_of_one_name_are_told_apart_by_people_only_if_they_are_named() -> None:
    with pytest.raises(SettingsError, match=r"number 2 \(s\): there is one called 's' already"):
        read_suspenders("profile.toml", [{"signal": "s", "kind": "high"}, {"signal": "s", "kind": "low"}])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"when": []}, "when = "),
        ({"when": [{"device": "gauge"}]}, "needs one of above, below, equals, differs"),
        ({"when": [{"device": "gauge", "above": 1, "below": 2}]}, "needs one of above"),
        ({"when": [{"device": "gauge", "over": 1}]}, "when.0.over"),
        ({"action": "explode"}, "action = 'explode'"),
        ({"action": "alarm", "when_clear": "resume"}, "goes with action = pause or pause_now, not alarm"),
        ({"gracee": 1}, "no setting 'gracee': did you mean 'grace'"),
        ({"when": [{"device": "v", "equal": 1}]}, "no setting 'when.0.equal': did you mean 'equals'"),
    ],
)
def test_a_wrong_interlock_is_told_with_its_name_and_remedy(change: dict[str, Any], text: str) -> None:
    entry = {"name": "vacuum", "when": [{"device": "gauge", "above": 1}], "action": "pause"}
    with pytest.raises(SettingsError, match=text) as told:
        read_interlocks("profile.toml", [entry | change])
    assert "[[interlocks]] number 1 (vacuum)" in str(told.value)
