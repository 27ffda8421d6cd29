"""Passwords, secrets of keys, and signed tokens."""

import base64
import hashlib
import hmac
import re
import secrets
import time

import msgspec

from bec_bluesky.errors import BadArgumentError

__all__ = ["Token", "hash_password", "hash_secret", "is_hash_of_password", "is_password", "read_token", "sign_token"]

_N, _R, _P = 2**14, 8, 1
"""Cost of scrypt: 16 MB and some 50 ms a try."""
_HASH = re.compile(rf"scrypt\${_N}\${_R}\${_P}\$[0-9a-f]{{32}}\$[0-9a-f]{{64}}")
_SHORTEST = 8
_LONGEST = 1024


def hash_secret(secret: str) -> str:
    """Give what is kept of a secret that is long and random."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def hash_password(password: str) -> str:
    """Give what is kept of a password, `scrypt$n$r$p$salt$hash`; raises BadArgumentError if it is short or endless."""
    if not _SHORTEST <= len(password) <= _LONGEST:
        raise BadArgumentError(f"a password has {_SHORTEST} to {_LONGEST} characters, this one has {len(password)}")
    if password != password.strip():
        raise BadArgumentError("a password neither begins nor ends with a space: clients take them away")
    salt = secrets.token_bytes(16)
    return f"scrypt${_N}${_R}${_P}${salt.hex()}${_scrypt(password, salt, _N, _R, _P).hex()}"


def is_password(password: str, kept: str | None) -> bool:
    """Whether a password is the one that was kept; takes as long if there is none."""
    if kept is None or len(password) > _LONGEST:
        _scrypt("", b"", _N, _R, _P)
        return False
    _, n, r, p, salt, wanted = kept.split("$")
    found = _scrypt(password, bytes.fromhex(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, bytes.fromhex(wanted))


def is_hash_of_password(kept: str) -> bool:
    """Whether a text is as `hash_password` writes it."""
    return _HASH.fullmatch(kept) is not None


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, n=n, r=r, p=p, dklen=32)


class Token(msgspec.Struct, frozen=True):
    """What a token says."""

    kind: str
    """access or refresh."""
    session: str
    expires: float


def sign_token(token: Token, secret: str) -> str:
    """Write a token so that nobody without the secret can write another one."""
    said = base64.urlsafe_b64encode(msgspec.json.encode(token)).rstrip(b"=")
    return f"{said.decode()}.{_signature(said, secret)}"


def read_token(text: str, kind: str, secret: str) -> Token | None:
    """Give what a token says, if it is of that kind, signed with the secret, and has not expired."""
    said, _, signature = text.encode("utf-8", "surrogatepass").rpartition(b".")
    if not hmac.compare_digest(signature, _signature(said, secret).encode()):
        return None
    token = msgspec.json.decode(base64.urlsafe_b64decode(said + b"=" * (-len(said) % 4)), type=Token)
    return token if token.kind == kind and token.expires > time.time() else None


def _signature(said: bytes, secret: str) -> str:
    return hmac.new(bytes.fromhex(secret), said, hashlib.sha256).hexdigest()
