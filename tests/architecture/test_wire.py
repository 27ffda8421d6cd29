"""A change of what crosses Redis is a visible diff: the schema of all messages stands in `wire_schema.json`.

After a change that is meant, write it anew with `python -m tests.architecture.test_wire`.
"""

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

import msgspec

import bec_bluesky.messages as messages
from bec_bluesky import channels

SNAPSHOT = Path(__file__).with_name("wire_schema.json")


def all_messages() -> list[type]:
    found: dict[str, type] = {}
    for module in pkgutil.iter_modules(messages.__path__, "bec_bluesky.messages."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == module.name:
                found[name] = value
    return [found[name] for name in sorted(found) if not name.startswith("_") and name != "Message"]


def schema() -> dict[str, Any]:
    _, components = msgspec.json.schema_components(all_messages())
    for each in components.values():
        each.pop("description", None)
    return {name: components[name] for name in sorted(components)}


def test_the_wire_is_what_the_snapshot_says() -> None:
    assert schema() == json.loads(SNAPSHOT.read_text()), "the wire changed: see this module's docstring"


def test_every_message_is_frozen() -> None:
    assert [cls.__name__ for cls in all_messages() if not cls.__struct_config__.frozen] == []


def test_no_two_messages_share_a_tag() -> None:
    tags = [cls.__struct_config__.tag for cls in all_messages() if cls.__struct_config__.tag is not None]
    assert len(tags) == len(set(tags))


def test_no_two_channels_share_a_name() -> None:
    names = [channel.name for channel in channels.ALL.values()]
    assert len(names) == len(set(names))


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(schema(), indent=1, sort_keys=True) + "\n")
