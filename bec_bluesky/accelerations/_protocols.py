"""isinstance() against bluesky's protocols, whose members are known."""

import typing
from typing import Any

from bluesky import protocols

from bec_bluesky.accelerations._acceleration import Acceleration, Replacement

__all__ = ["PROTOCOLS"]

_Stock: Any = type(typing.Protocol)
_members: dict[Any, tuple[tuple[str, bool], ...]] = {}
"""{protocol: (member, whether it is a method) …}"""
_MISSING = object()


class _Remembering(_Stock):
    """Metaclass of a protocol that has its members collected once, not in each check."""

    def __instancecheck__(cls, instance: Any) -> bool:  # pyright: ignore[reportSelfClsParameterName]  # of a metaclass
        for member, is_method in _members.get(cls, _UNKNOWN):
            found = getattr(instance, member, _MISSING)
            if found is _MISSING or (is_method and found is None):
                return super().__instancecheck__(instance)
        return True


_UNKNOWN = (("__no_such_member__", False),)


def _replacements() -> list[Replacement]:
    found = [each for each in vars(protocols).values() if type(each) is _Stock]
    found = [each for each in found if each.__module__ == protocols.__name__ and each._is_runtime_protocol]
    for protocol in found:
        names = typing._get_protocol_attrs(protocol)  # pyright: ignore[reportAttributeAccessIssue]  # guarded
        _members[protocol] = tuple((name, callable(getattr(protocol, name, None))) for name in sorted(names))
    return [Replacement(each, "__class__", _Remembering) for each in found]


PROTOCOLS = Acceleration(
    name="protocols",
    stock={"typing:_ProtocolMeta": "cf22b7e619a1", "typing:_get_protocol_attrs": "381a6d672858"},
    in_process=_replacements,
    before_python=(3, 12),
)
"""Before Python 3.12, each isinstance() against a runtime protocol collects the members of the protocol anew, from all
its bases. They are collected once; the instance is looked at as ever. For the whole process."""
