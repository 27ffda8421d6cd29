"""The rules give the same verdicts as bluesky-queueserver's own functions on the same rules, plans and devices."""

from pathlib import Path
from typing import Any

import bluesky_queueserver
from bluesky_queueserver.manager.profile_ops import (
    check_if_function_allowed,
    load_allowed_plans_and_devices,
    load_user_group_permissions,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from bec_bluesky.people import DEFAULT_RULES, UserGroups

SIM_FILE = Path(bluesky_queueserver.__file__).parent / "profile_collection_sim" / "user_group_permissions.yaml"
PLANS = ("count", "scan", "grid_scan", "adaptive_scan", "inner_product_scan", "_private", "mv", "count_more")
FUNCTIONS = ("function_sleep", "clear_buffer", "func_for_test_sleep", "unit_test_one", "push_element", "_hidden")


def device(kind: str, **components: Any) -> dict[str, Any]:
    described: dict[str, Any] = {
        "is_readable": kind in ("motor", "det"),
        "is_movable": kind == "motor",
        "is_flyable": kind == "fly",
        "classname": kind,
        "module": "m",
    }
    return described | ({"components": components} if components else {})


DEVICES = {
    "det": device("det", val=device("det"), gain=device("motor")),
    "det3": device("det", val=device("det")),
    "motor": device("motor", velocity=device("motor"), offset=device("plain")),
    "motor1": device("motor"),
    "flyer": device("fly", det=device("det", val=device("plain"))),
    "_hidden": device("det", val=device("det")),
    "sim_bundle_A": device(
        "plain", mtrs=device("plain", x=device("motor"), y=device("motor")), dets=device("plain", det_A=device("det"))
    ),
}


def paths(tree: dict[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, each in tree.items():
        found[prefix + name] = each
        found |= paths(each.get("components", {}), f"{prefix}{name}.")
    return found


def theirs(user_groups: dict[str, Any]) -> dict[str, tuple[set[str], set[str]]]:
    """Give plans and device paths by group, as the peer says."""
    plans = {name: {"name": name, "parameters": []} for name in PLANS}
    allowed_plans, allowed_devices = load_allowed_plans_and_devices(
        existing_plans=plans, existing_devices=DEVICES, user_group_permissions={"user_groups": user_groups}
    )
    return {
        group: (
            set(allowed_plans[group]),
            {path for path, each in paths(allowed_devices[group]).items() if not each.get("excluded")},
        )
        for group in user_groups
    }


def ours(user_groups: dict[str, Any]) -> dict[str, tuple[set[str], set[str]]]:
    rules = UserGroups({"user_groups": user_groups})
    return {
        group: (
            {name for name in PLANS if rules.is_plan_allowed(group, name)},
            {path for path, facts in paths(DEVICES).items() if rules.is_device_allowed(group, path, facts)},
        )
        for group in user_groups
    }


def test_the_rules_of_the_peers_simulated_profile_give_its_verdicts() -> None:
    user_groups = load_user_group_permissions(str(SIM_FILE))["user_groups"]
    assert ours(user_groups) == theirs(user_groups)
    rules = UserGroups({"user_groups": user_groups})
    for group in user_groups:
        for name in FUNCTIONS:
            expected = check_if_function_allowed(
                name, group_name=group, user_group_permissions={"user_groups": user_groups}
            )
            assert rules.is_function_allowed(group, name) == expected, (group, name)


def test_the_default_rules_are_rules_for_the_peer_too() -> None:
    assert ours(DEFAULT_RULES["user_groups"]) == theirs(DEFAULT_RULES["user_groups"])


NAME_PATTERNS = st.sampled_from(["count", ":^count", ":scan$", ":.*", ":+^mv", ":?^_", "mv", ":^[a-c]"])
WORDS = st.sampled_from(["^det", "^motor$", ".*", "val$", "^sim", "^_", "mtrs", "x|y", "[3-5]$"])
LEVELS = st.lists(
    st.builds(lambda sign, word: sign + word, st.sampled_from(["", "+", "-"]), WORDS), min_size=1, max_size=3
)
REST = st.builds(
    lambda word, depth: f":?{word}" + (f":depth={depth}" if depth else ""), WORDS, st.sampled_from([0, 1, 2, 5])
)
EXPRESSIONS = st.builds(
    lambda kind, levels, rest: kind + "".join(f":{each}" for each in levels) + rest,
    st.sampled_from(["", "__READABLE__", "__DETECTOR__", "__MOTOR__", "__FLYABLE__"]),
    LEVELS,
    st.one_of(st.just(""), REST),
)
DEVICE_PATTERNS = st.one_of(
    EXPRESSIONS, REST, st.sampled_from(["det", "det.val", "motor.velocity", "sim_bundle_A.mtrs.x"])
)


def lists(patterns: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.one_of(st.just([None]), st.lists(patterns, max_size=3))


GROUP = st.fixed_dictionaries(
    {},
    optional={
        "allowed_plans": lists(NAME_PATTERNS),
        "forbidden_plans": lists(NAME_PATTERNS),
        "allowed_devices": lists(DEVICE_PATTERNS),
        "forbidden_devices": lists(DEVICE_PATTERNS),
    },
)


@given(root=GROUP, group=GROUP)
@settings(max_examples=300, deadline=None)
def test_any_rules_give_the_peers_verdicts(root: dict[str, Any], group: dict[str, Any]) -> None:
    user_groups = {"root": root, "group": group}
    assert ours(user_groups) == theirs(user_groups)
