"""What the file of people holds, and what is wrong with one that somebody edited by hand."""

import re
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML

from bec_bluesky.errors import BadArgumentError, SettingsError
from bec_bluesky.people._principals import ApiKey, Session, User
from bec_bluesky.people._roles import checked_role
from bec_bluesky.people._secrets import is_hash_of_password

__all__ = ["Content", "check_name", "read_content"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}")
_SECRET = re.compile(r"([0-9a-f]{2})*")
_BYTE = re.compile(r"\(byte (\d+)\)")
_PLACE = re.compile(r" - at `(\$.*)`")


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everybody, with what opens doors to them."""

    secret: str
    """Signs tokens; hexadecimal."""
    users: tuple[User, ...] = ()
    keys: tuple[ApiKey, ...] = ()
    sessions: tuple[Session, ...] = ()


class _Mistake(Exception):
    """What is wrong, and where: as msgspec writes it, `$.users[0].role`."""

    def __init__(self, text: str, place: str) -> None:
        super().__init__(text)
        self.place = place


def check_name(name: str) -> None:
    """Raise BadArgumentError for what is no name of a user."""
    if not _NAME.fullmatch(name) or name.startswith("UNAUTHENTICATED"):
        raise BadArgumentError(f"{name!r} is no name: 1 to 64 letters, digits and _ . @ + -")


def read_content(path: Path) -> Content:
    """Read the file; raises FileNotFoundError, and SettingsError that says in which line what is wrong."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SettingsError(f"{path} is no book of people ({error})") from error
    try:
        content = msgspec.json.decode(text, type=Content)
        _check(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, _Mistake) as error:
        line = _line_of(text, error)
        where = "" if line is None else f"line {line}: "
        said = _BYTE.sub("", _PLACE.sub("", str(error))).strip()
        raise SettingsError(f"{path} is no book of people: {where}{said}; repair it") from error
    return content


def _check(content: Content) -> None:
    """Raise _Mistake for what has the right types and still makes no sense."""
    if not _SECRET.fullmatch(content.secret):
        raise _Mistake("the secret is not hexadecimal", "$.secret")
    names: set[str] = set()
    for number, user in enumerate(content.users):
        place = f"$.users[{number}]"
        try:
            check_name(user.name)
        except BadArgumentError as error:
            raise _Mistake(str(error), f"{place}.name") from error
        if user.name in names:
            raise _Mistake(f"there is a {user.name!r} already", f"{place}.name")
        names.add(user.name)
        try:
            checked_role(user.role)
        except BadArgumentError as error:
            raise _Mistake(str(error), f"{place}.role") from error
        if user.password is not None and not is_hash_of_password(user.password):
            text = f"no hash: write null, and then `bec-bluesky people set {user.name} --password`"
            raise _Mistake(text, f"{place}.password")


def _line_of(text: bytes, error: Exception) -> int | None:
    if found := _BYTE.search(str(error)):
        return text[: int(found[1])].count(b"\n") + 1
    place = error.place if isinstance(error, _Mistake) else ""
    if found := _PLACE.search(str(error)):
        place = found[1]
    if not place:
        return None
    node: Any = YAML().load(text)  # JSON is YAML, and this reader knows lines
    line = 0
    for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", place):
        if name and name not in node:
            break
        line = node.lc.key(name)[0] if name else node.lc.item(int(number))[0]
        node = node[name or int(number)]
    return int(line) + 1
