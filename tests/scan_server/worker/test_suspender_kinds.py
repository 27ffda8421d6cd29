"""Each kind of suspender is bluesky's class that bears out its name."""

from typing import Any

import pytest
from ophyd import Signal

from bec_bluesky.guards import Suspender
from bec_bluesky.scan_server.worker._standing import make_suspender


@pytest.mark.parametrize(
    ("entry", "bad", "between", "good"),
    [
        ({"kind": "below", "limit": 5, "resume_at": 8}, [4.9], [6], [8, 9]),
        ({"kind": "above", "limit": 5, "resume_at": 3}, [5.1], [4], [3, 2]),
        ({"kind": "below", "limit": 5}, [4.9], [], [5, 6]),
        ({"kind": "high"}, [1, True], [], [0, False]),
        ({"kind": "low"}, [0, False], [], [1, True]),
        ({"kind": "outside", "lowest": 1, "highest": 2}, [0.9, 2.1], [], [1.5]),
        ({"kind": "changed", "expected": "A"}, ["B", ""], [], ["A"]),
        ({"kind": "changed", "expected": 0}, [1], [], [0]),
        ({"kind": "changed", "expected": ""}, ["A"], [], [""]),
    ],
)
def test_it_suspends_and_resumes_where_it_says(
    entry: dict[str, Any], bad: list[Any], between: list[Any], good: list[Any]
) -> None:
    suspender = make_suspender(Suspender.model_validate({"signal": "s", **entry}), Signal(name="s", value=0))
    for value in (*bad, *between, *good):
        found = suspender._should_suspend(value), suspender._should_resume(value)
        assert found == (value in bad, value in good), value
