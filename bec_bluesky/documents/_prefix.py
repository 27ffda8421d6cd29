"""Beginnings of file names from a template over the start document, as the suitcases of Bluesky have them."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from string import Formatter
from typing import Any

from bec_bluesky.documents._callback import Document
from bec_bluesky.errors import RefusedError, choices

__all__ = ["file_prefix", "metadata_word"]

_FIELD = re.compile(r"(\w+)((?:\[\w+\])*)")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_ABSENT = {"sample": "no_sample", "proposal": "no_proposal", "user": "no_user", "beamline": "no_beamline"}
_ABSENT |= {"plan_name": "run", "scan_id": 0}
"""What stands for usual metadata that a run has not, as in the names of run files."""
_LONGEST = 150
"""Characters; file systems allow 255 bytes, and the writers append a stream's name and a suffix."""


def file_prefix(template: str, start: Document) -> str:
    """Fill `{uid}-`, `{scan_id:06d}_{start[sample]}_` or `{time:%Y-%m-%d}-`; what is unsafe in a file name becomes `_`.

    Fields are keys of the start document, alone or as `start[key]`, and keys of mappings in it. Where a run has no
    sample, proposal, user or beamline, `no_sample` and so on stand for it. Raises RefusedError for
    anything else, so that neither a template nor metadata can leave the directory.
    """
    try:
        filled = _Prefix().vformat(template, (), start)
    except RefusedError:
        raise
    except (ValueError, TypeError) as error:
        raise _wrong(template, str(error)) from error
    return _safe(filled).lstrip(".")[:_LONGEST]


def metadata_word(start: Document, word: str) -> Any:
    """Find a word in the start document: the value itself, `<word>_name`, `<word>_id`, or a mapping's name or id."""
    found = next((start[key] for key in (word, f"{word}_name", f"{word}_id") if start.get(key) not in (None, "")), "")
    if not isinstance(found, Mapping):
        return found
    return next((found[key] for key in ("name", "id", f"{word}_id") if found.get(key) not in (None, "")), "")


class _Prefix(Formatter):
    """Formats values of a start document, and reaches for nothing else."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        found = _FIELD.fullmatch(field_name)
        if found is None:
            raise _wrong(field_name, "a field is a key of the start document, as {uid} or {start[uid]}")
        keys = [found[1], *re.findall(r"\w+", found[2])]
        keys = keys[1:] if keys[0] == "start" and len(keys) > 1 else keys
        if keys[0] in _ABSENT and (len(keys) == 1 or kwargs.get(keys[0]) in (None, "")):
            found_word = metadata_word(kwargs, keys[0])
            return (_ABSENT[keys[0]] if found_word == "" else found_word), keys[0]
        value: Any = kwargs
        for key in keys:
            if not isinstance(value, Mapping) or key not in value:
                known = list(map(str, value)) if isinstance(value, Mapping) else []
                raise _wrong(field_name, f"the start document has no {key!r}: {choices(key, known)}")
            value = value[key]
        return (datetime.fromtimestamp(value) if keys[-1] == "time" else value), keys[0]

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, datetime) and not format_spec:
            format_spec = "%Y-%m-%dT%H%M%S"
        if isinstance(value, int | float | datetime):
            return format(value, format_spec)
        texts = map(str, value) if isinstance(value, list | tuple) else [str(value)]
        return _safe("-".join(texts))


def _safe(text: str) -> str:
    plain = "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))
    return _UNSAFE.sub("_", plain)


def _wrong(template: str, why: str) -> RefusedError:
    return RefusedError(f"{template!r} begins no file names: {why}", "bad_prefix")
