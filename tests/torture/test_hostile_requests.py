"""Hostile requests: always an answer or a logged refusal, never a changed queue, never a dead scan server."""

import math
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bec_bluesky.channels import REPLIES, REQUESTS
from bec_bluesky.messages import decoder
from bec_bluesky.messages.queue import AddItem, Reply, RequestBody
from bec_bluesky.settings import Settings
from tests.scan_server.scan_server_harness import IMPATIENT, SCRIPTED
from tests.scan_server.worker.worker_bench import make_profile
from tests.torture.live_scan_server import LiveScanServer, live_scan_server

LONG = "ü" * 1_000_000
NESTED: Any = "deep"
for _ in range(400):
    NESTED = [NESTED]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([2**63 - 1, -(2**63), 2**64 - 1, 0, -1]),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -0.0]),
    st.sampled_from(["", "\x00", "\u202e", "𝔘𝔫", "../..", "{sim}:epoch", "'; FLUSHALL", LONG]),
    st.binary(max_size=20),
    st.just(NESTED),
)
NESTING = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
TAGS = [kind.__struct_config__.tag for kind in RequestBody.__args__]
FIELDS = sorted({name for kind in RequestBody.__args__ for name in kind.__struct_fields__})
LEFT_OUT = ("clear_queue", "remove_items", "reload_plans", "set_environment")
"""The first two mean something whatever is in them; the scripted worker does not answer the third, the last ends it."""
LOOKING = ("get_status", "get_queue", "get_history", "get_tasks", "get_lock", "get_rules")
MANY = hypothesis_settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
FEW = hypothesis_settings(MANY, max_examples=12, derandomize=True)


class Attacker:
    """Writes to the request stream what no client of ours would, and looks what becomes of it."""

    def __init__(self, live: LiveScanServer) -> None:
        self.live = live
        self._name = uuid.uuid4().hex
        self._seen = "0-0"

    def send(self, data: bytes, field: str = "m") -> None:
        bus = self.live.bus
        self.live.call(bus.redis.xadd(bus.key(REQUESTS), {field: data}))

    def ask(self, body: dict[str, Any], envelope: dict[str, Any] | None = None) -> Reply | None:
        """Send a request; give the answer, None if none came although the scan server has read on."""
        request_id = uuid.uuid4().hex
        known = {
            "type": "request",
            "request_id": request_id,
            "reply_to": self._name,
            "deadline": time.time() + 20.0,
            "user": "mallory",
        }
        self.send(msgpack.packb(known | {"body": body} | (envelope or {}), use_bin_type=True))
        for _ in range(200):
            for stream_id, data in self._replies():
                self._seen = stream_id
                reply: Reply = decoder(Reply).decode(data)
                if reply.request_id == request_id:
                    return reply
            if envelope and self.live.status():
                return None  # without a name or a place for the answer there is none
        raise AssertionError(f"no answer to {str(body)[:1000]}")

    def _replies(self) -> list[tuple[str, bytes]]:
        bus = self.live.bus
        key = bus.key(REPLIES, client=self._name)
        found = self.live.call(bus.read_keys({key: self._seen}, block=0.2)).get(key, [])
        return [(stream_id, fields[b"m"]) for stream_id, fields in found]

    def survives(self, before: Any) -> None:
        """Check that the scan server answers, and that its queue is what it was."""
        after = self.snapshot()
        assert after == before

    def snapshot(self) -> Any:
        status = self.live.status()
        ids = [item.item_id for item in self.live.waiting()]
        assert status.run_state in ("idle", "running", "starting"), status.worker
        return ids, status.queue_state, status.history, status.loop, status.ignore_failures, status.autostart


@pytest.fixture(scope="module")
def live(redis_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveScanServer]:
    settings = redis_settings.with_(beamline="hostile", data_dir=tmp_path_factory.mktemp("hostile"))
    with live_scan_server(settings, worker_command=SCRIPTED, has_spare=False, patience=IMPATIENT) as live:
        live.until(lambda: live.status().run_state == "idle")
        live.ask(AddItem(plan="wait", title="this one stays"))
        yield live


@pytest.fixture
def attacker(live: LiveScanServer) -> Attacker:
    return Attacker(live)


def check_bytes(attacker: Attacker, data: bytes, field: str) -> None:
    before = attacker.snapshot()
    attacker.send(data, field)
    attacker.survives(before)


def check_body(attacker: Attacker, body: dict[str, Any]) -> None:
    """Whatever a request of a known kind holds: it is refused and nothing changed, or it meant something."""
    before = attacker.snapshot()
    reply = attacker.ask(body)
    assert reply is not None
    if reply.failure is not None:
        assert reply.failure.code not in ("", "internal_error"), reply.failure
        assert reply.failure.traceback == ""
        attacker.survives(before)
    elif body["type"] in LOOKING:
        attacker.survives(before)


def check_envelope(attacker: Attacker, envelope: dict[str, Any]) -> None:
    before = attacker.snapshot()
    attacker.ask({"type": "get_queue"}, envelope)
    attacker.survives(before)


BYTES = given(data=st.binary(max_size=2000), field=st.sampled_from(["m", "M", ""]))
BODIES = given(
    body=st.builds(
        lambda tag, fields: fields | {"type": tag},
        st.sampled_from([tag for tag in TAGS if tag not in LEFT_OUT]),
        st.dictionaries(st.sampled_from(FIELDS), NESTING, max_size=4),
    )
)
ADDS = given(
    args=st.lists(NESTING, max_size=3), kwargs=st.dictionaries(st.just("note") | st.text(), NESTING, max_size=3)
)
ENVELOPES = given(
    envelope=st.dictionaries(
        st.sampled_from(
            ["request_id", "reply_to", "deadline", "user", "user_group", "lock_key", "queue", "type", "body"]
        ),
        NESTING,
        min_size=1,
        max_size=3,
    )
)


@FEW
@BYTES
def test_random_bytes_change_nothing(attacker: Attacker, data: bytes, field: str) -> None:
    check_bytes(attacker, data, field)


@FEW
@BODIES
def test_requests_with_hostile_fields_are_answered(attacker: Attacker, body: dict[str, Any]) -> None:
    check_body(attacker, body)


@FEW
@ENVELOPES
def test_hostile_envelopes_change_nothing(attacker: Attacker, envelope: dict[str, Any]) -> None:
    check_envelope(attacker, envelope)


@FEW
@ADDS
def test_hostile_arguments_are_refused_or_kept_as_they_are(
    attacker: Attacker, args: list[Any], kwargs: dict[str, Any]
) -> None:
    check_add(attacker, args, kwargs, plan="wait")


def check_add(attacker: Attacker, args: list[Any], kwargs: dict[str, Any], plan: str) -> None:
    check_body(attacker, {"type": "add_item", "plan": plan, "args": args, "kwargs": kwargs})


@pytest.mark.parametrize(
    "body",
    [
        {"type": "add_item", "plan": LONG},
        {"type": "remove_item", "item_id": LONG},
        {"type": "add_item", "plan": "wait", "kwargs": {LONG: 1}},
        {"type": "add_item", "plan": "wait", "before": LONG},
        {"type": "get_history", "before": LONG},
        {"type": "get_history", "limit": -(2**63)},
        {"type": "control_run", "action": "abort", "item_id": LONG},
    ],
)
def test_a_long_text_in_a_name_is_refused_in_a_short_sentence(attacker: Attacker, body: dict[str, Any]) -> None:
    reply = attacker.ask(body)
    assert reply is not None
    assert reply.failure is not None
    assert len(reply.failure.text) < 2000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_hostile_requests(attacker: Attacker) -> None:
    """The same checks with many more examples."""
    MANY(BYTES(lambda data, field: check_bytes(attacker, data, field)))()
    MANY(BODIES(lambda body: check_body(attacker, body)))()
    MANY(ENVELOPES(lambda envelope: check_envelope(attacker, envelope)))()
    MANY(ADDS(to_add(attacker, "wait")))()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_hostile_arguments_for_real_plans(settings: Settings, tmp_path: Path) -> None:
    profile = make_profile(tmp_path / "profile")
    with live_scan_server(settings.with_(profile=profile), has_spare=False) as live:
        live.until(lambda: live.status().run_state == "idle")
        attacker = Attacker(live)
        for plan in ("count", "scan", "grid_scan", "list_scan", "sim_scan", "mv"):
            few = hypothesis_settings(MANY, max_examples=40)
            few(ADDS(to_add(attacker, plan)))()


def to_add(attacker: Attacker, plan: str) -> Callable[..., None]:
    def check(args: Any, kwargs: Any) -> None:
        check_add(attacker, args, kwargs, plan)

    return check
