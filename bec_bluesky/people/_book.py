"""The book of people: users, their keys and sessions, in one file that only its owner may read."""

import contextlib
import fcntl
import secrets
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec

from bec_bluesky.errors import BadArgumentError, SettingsError, choices
from bec_bluesky.log import logger
from bec_bluesky.people._content import Content, check_name, read_content
from bec_bluesky.people._principals import INHERIT, SINGLE_USER, ApiKey, Principal, Session, User
from bec_bluesky.people._roles import ROLES, default_group, role_named
from bec_bluesky.people._secrets import Token, hash_password, hash_secret, is_password, read_token, sign_token
from bec_bluesky.private_file import write_private

__all__ = ["ACCESS_TIME", "PROVIDER", "REFRESH_TIME", "PeopleBook"]

_log = logger(__name__)
PROVIDER = "local"
"""Who says that somebody is who they are: this book."""
ACCESS_TIME = 15 * 60.0
REFRESH_TIME = 7 * 86_400.0
_SESSION_TIME = 365 * 86_400.0
_SECRET_BYTES = 36
_FIRST = 8
_LONGEST_NOTE = 255
_LONGEST_LIFE = 100 * 365 * 86_400
"""Seconds."""
_MOST_SESSIONS = 100
"""Of one user; the oldest end when more are begun."""
T = TypeVar("T")


class PeopleBook:
    """Several processes may have the same book: each sees at once what another one wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content = Content(secret="")
        self._seen: tuple[int, int, int] | None = None
        """Which file was read: inode, size, time of change."""
        self._keys: dict[str, ApiKey] = {}
        """By the hash of the secret."""
        self._used: dict[str, float] = {}
        self._told = ""
        """What was logged last about a spoiled file."""

    def load(self) -> None:
        """Read the file, if there is one; raises SettingsError if it cannot be read or is no such book."""
        try:
            state = self.path.stat()
            seen = (state.st_ino, state.st_size, state.st_mtime_ns)
            if seen == self._seen:
                return
            content = read_content(self.path)
        except FileNotFoundError:
            self._take(Content(secret=""), None)
            return
        except OSError as error:
            raise SettingsError(f"{self.path} is no book of people ({error})") from error
        self._take(content, seen)

    def _load_if_well(self) -> None:
        """Read the file; one that somebody spoiled shuts nobody out: what was read before holds."""
        try:
            self.load()
        except SettingsError as error:
            if str(error) != self._told:
                self._told = str(error)
                _log.warning("%s; until then what was read before holds", error)
        else:
            self._told = ""

    def _take(self, content: Content, seen: tuple[int, int, int] | None) -> None:
        self._content, self._seen = content, seen
        self._keys = {key.hashed: key for key in content.keys}

    # ── who asks ──

    def who(self, secret: str) -> Principal | None:
        """Give who shows this key or access token, if it is a living one of somebody who is still here."""
        self._load_if_well()
        key = self._keys.get(hash_secret(secret))
        if key is not None:
            owner = self.named(key.owner) if _is_alive(key.expires) else None
            if owner is None:
                return None
            self._used[key.hashed] = time.time()
            scopes = owner.scopes if INHERIT in key.scopes else owner.scopes & frozenset(key.scopes)
            return replace(owner, scopes=scopes, key=key)
        session = self._session_of(secret, "access")
        return None if session is None else self.named(session.owner)

    def named(self, name: str) -> Principal | None:
        """Give what somebody may do at most."""
        if name == SINGLE_USER.name:
            return SINGLE_USER
        user = next((user for user in self._content.users if user.name == name), None)
        return None if user is None else Principal(user.name, user.group, (user.role,), ROLES[user.role], PROVIDER)

    @property
    def users(self) -> tuple[User, ...]:
        """Everybody, in the order of their names."""
        self._load_if_well()
        return tuple(sorted(self._content.users, key=lambda user: user.name))

    # ── users ──

    def add(
        self, name: str, role: str, *, group: str | None = None, password: str | None = None, note: str = ""
    ) -> User:
        """Add somebody; raises BadArgumentError for names that are taken or no names, and roles that are none."""
        check_name(name)
        role = role_named(role)
        kept = None if password is None else hash_password(password)
        user = User(name, role, group or default_group(role), kept, note)

        def change(content: Content) -> tuple[Content, User]:
            if any(each.name == name for each in content.users):
                raise BadArgumentError(f"there is a {name!r} already")
            return msgspec.structs.replace(content, users=(*content.users, user)), user

        return self._change(change)

    def set(self, name: str, *, role: str | None = None, group: str | None = None, password: str | None = None) -> User:
        """Change somebody's role, group or password; a new password ends their sessions."""
        role = None if role is None else role_named(role)
        kept = None if password is None else hash_password(password)

        def change(content: Content) -> tuple[Content, User]:
            before = _known(content, name)
            after = msgspec.structs.replace(
                before,
                role=role or before.role,
                group=group or (before.group if role is None else default_group(role)),
                password=kept or before.password,
            )
            users = tuple(after if each is before else each for each in content.users)
            sessions = tuple(each for each in content.sessions if kept is None or each.owner != name)
            return msgspec.structs.replace(content, users=users, sessions=sessions), after

        return self._change(change)

    def remove(self, name: str) -> None:
        """Take somebody out, with their keys and sessions."""

        def change(content: Content) -> tuple[Content, None]:
            gone = _known(content, name)
            return Content(
                content.secret,
                tuple(each for each in content.users if each is not gone),
                tuple(each for each in content.keys if each.owner != name),
                tuple(each for each in content.sessions if each.owner != name),
            ), None

        self._change(change)

    # ── keys ──

    def make_key(
        self, owner: Principal, scopes: Collection[str] | None, lifetime: float | None, note: str | None
    ) -> tuple[ApiKey, str]:
        """Make a key with some of its owner's scopes; give it and its secret, which nobody can give again.

        Raises BadArgumentError if it were to have more than its owner, or than the key by which it is asked for.
        """
        if lifetime is not None and not 0 < lifetime <= _LONGEST_LIFE:
            raise BadArgumentError(f"expires_in={lifetime}: seconds, more than 0 and at most {_LONGEST_LIFE}")
        if note is not None and len(note) > _LONGEST_NOTE:
            raise BadArgumentError(f"the note has {len(note)} characters: at most {_LONGEST_NOTE}")
        secret = secrets.token_hex(_SECRET_BYTES)
        key = ApiKey(
            first_eight=secret[:_FIRST],
            hashed=hash_secret(secret),
            owner=owner.name,
            scopes=_scopes_of_new(owner, scopes),
            note=note,
            expires=None if lifetime is None else time.time() + lifetime,
        )

        def change(content: Content) -> tuple[Content, ApiKey]:
            return msgspec.structs.replace(content, keys=(*content.keys, key)), key

        return self._change(change), secret

    def used(self, key: ApiKey) -> float | None:
        """Tell when it was used last since this process started."""
        return self._used.get(key.hashed)

    def keys_of(self, owner: str) -> list[ApiKey]:
        """Give somebody's living keys."""
        self._load_if_well()
        return [key for key in self._content.keys if key.owner == owner and _is_alive(key.expires)]

    def revoke_key(self, owner: str, first_eight: str) -> bool:
        """Take a key away; False if its owner has none that begins so."""

        def change(content: Content) -> tuple[Content, bool]:
            kept = tuple(key for key in content.keys if key.owner != owner or key.first_eight != first_eight[:_FIRST])
            return msgspec.structs.replace(content, keys=kept), len(kept) < len(content.keys)

        return self._change(change)

    # ── sessions ──

    def log_in(self, name: str, password: str) -> Session | None:
        """Begin a session, if that is the password; takes some 50 ms, which is why it belongs into a thread.

        Raises SettingsError if the file is spoiled: sessions are kept there.
        """
        self.load()
        user = next((user for user in self._content.users if user.name == name), None)
        if not is_password(password, None if user is None else user.password):
            return None
        now = time.time()
        session = Session(uuid.uuid4().hex, name, now, now + _SESSION_TIME)

        def change(content: Content) -> tuple[Content, Session]:
            own = [each for each in content.sessions if each.owner == name]
            ended = own[: max(0, len(own) + 1 - _MOST_SESSIONS)]
            kept = tuple(each for each in content.sessions if each not in ended)
            return msgspec.structs.replace(content, sessions=(*kept, session)), session

        return self._change(change)

    def tokens(self, session: Session) -> tuple[str, str]:
        """Give an access token and a refresh token."""
        now, secret = time.time(), self._content.secret
        return (
            sign_token(Token("access", session.id, min(now + ACCESS_TIME, session.expires)), secret),
            sign_token(Token("refresh", session.id, min(now + REFRESH_TIME, session.expires)), secret),
        )

    def session_to_refresh(self, refresh_token: str) -> Session | None:
        """Give the session that a refresh token is of, if that goes on."""
        self._load_if_well()
        return self._session_of(refresh_token, "refresh")

    def sessions_of(self, owner: str) -> list[Session]:
        """Give somebody's sessions."""
        self._load_if_well()
        return [each for each in self._content.sessions if each.owner == owner and _is_alive(each.expires)]

    def end_session(self, owner: str, session_id: str) -> bool:
        """End somebody's session, whose tokens then open nothing; False if they have no such session."""

        def change(content: Content) -> tuple[Content, bool]:
            kept = tuple(each for each in content.sessions if each.owner != owner or each.id != session_id)
            return msgspec.structs.replace(content, sessions=kept), len(kept) < len(content.sessions)

        return self._change(change)

    def _session_of(self, token: str, kind: str) -> Session | None:
        if not self._content.secret:
            return None
        said = read_token(token, kind, self._content.secret)
        if said is None:
            return None
        return next((each for each in self._content.sessions if each.id == said.session), None)

    # ── the file ──

    def _change(self, change: Callable[[Content], tuple[Content, T]]) -> T:
        """Read, change and write, with no other process in between."""
        with self._locked():
            self.load()
            content, result = change(_without_the_dead(self._content))
            if content == self._content:
                return result
            if not content.secret:
                content = msgspec.structs.replace(content, secret=secrets.token_hex(32))
            text = msgspec.json.format(msgspec.json.encode(content), indent=1)
            write_private(self.path, text.decode())
            self.load()
        return result

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f".{self.path.name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _known(content: Content, name: str) -> User:
    for user in content.users:
        if user.name == name:
            return user
    raise BadArgumentError(f"nobody is called {name!r}: {choices(name, [user.name for user in content.users])}")


def _without_the_dead(content: Content) -> Content:
    return msgspec.structs.replace(
        content,
        keys=tuple(key for key in content.keys if _is_alive(key.expires)),
        sessions=tuple(each for each in content.sessions if _is_alive(each.expires)),
    )


def _scopes_of_new(owner: Principal, asked: Collection[str] | None) -> tuple[str, ...]:
    source = owner.key.scopes if owner.key is not None else (INHERIT,)
    if asked is None or INHERIT in asked:
        return source
    if not set(asked) <= owner.scopes:
        raise BadArgumentError(
            f"Requested scopes {sorted(asked)} must be a subset of the allowed principal's scopes "
            f"{sorted(owner.scopes)}."
        )
    return tuple(sorted(set(asked)))


def _is_alive(expires: float | None) -> bool:
    return expires is None or expires > time.time()
