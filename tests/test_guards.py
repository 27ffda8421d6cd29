"""What `profile.toml` may say of guards, and what is said of mistakes."""

from typing import Any

import pytest

from bec_bluesky.errors import SettingsError
from bec_bluesky.guards import read_suspenders


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
    with pytest.raises(SettingsError, match="number 2: there is one called 's' already"):
        read_suspenders("profile.toml", [{"signal": "s", "kind": "high"}, {"signal": "s", "kind": "low"}])
