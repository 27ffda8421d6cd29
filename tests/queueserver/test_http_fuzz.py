"""Whatever is sent to whatever path, nobody gets a 500, and what is refused changes no queue."""

from typing import Any

import httpx
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bec_bluesky.queueserver.web._calls import _CALLS
from tests.queueserver.conftest import KEY

CHANGING = ("manager_stop", "manager_kill", "environment_open", "environment_close", "environment_destroy")
"""They do what they say, whatever is sent with them, and the system would be gone."""
PATHS = [(call.verb, call.path) for call in _CALLS if call.method not in CHANGING] + [
    *(("GET", path) for path in ("/console_output", "/console_output_update", "/queue/item/x", "/test/server/sleep")),
    *(("POST", path) for path in ("/auth/apikey", "/auth/session/refresh", "/auth/principal/x/apikey")),
    *(("POST", path) for path in ("/queue/upload/spreadsheet", "/auth/provider/x/token")),
]
WORDS = st.sampled_from(["item", "items", "uid", "uids", "pos", "pos_dest", "mode", "lock_key", "task_uid", "option"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ITEMS = st.fixed_dictionaries(
    {}, optional={"item_type": VALUES, "name": st.just("count") | VALUES, "args": VALUES, "kwargs": VALUES}
)
BODIES = st.dictionaries(WORDS, VALUES | ITEMS | st.lists(ITEMS, max_size=2), max_size=4)
RAW = st.binary(max_size=40) | st.sampled_from([b'"\\ud800"', b'{"item": {"name": "\\ud800"}}', b"[" * 5_000, b"1e999"])


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(path=st.sampled_from(PATHS), body=BODIES | RAW, query=st.dictionaries(WORDS, st.text(max_size=8), max_size=2))
def test_nothing_that_is_sent_gets_a_500_or_changes_a_queue_that_refuses(
    http: httpx.Client, path: tuple[str, str], body: dict[str, Any] | bytes, query: dict[str, str]
) -> None:
    before = http.get("/queue/get").json()
    sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
    said = http.request(*path, params=query, **sent)
    assert said.status_code < 500, said.text
    is_refused = said.status_code >= 400 or (isinstance(said.json(), dict) and said.json().get("success") is False)
    if is_refused or path[0] == "GET":
        after = http.get("/queue/get").json()
        assert (after["items"], after["plan_queue_uid"]) == (before["items"], before["plan_queue_uid"])


@given(key=st.text(st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_categories=["Cs"]), max_size=80))
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_other_key_opens_anything(http: httpx.Client, key: str) -> None:
    if key == KEY:
        return
    with httpx.Client(base_url=http.base_url) as stranger:
        assert stranger.get("/queue/get", params={"api_key": key}).status_code == 401
        assert stranger.get("/status", headers={"Cookie": "bluesky_httpserver_api_key=x"}).status_code == 401
