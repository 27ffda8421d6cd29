"""Names of run files from a template over the start document: safe by construction."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePosixPath
from string import Formatter
from typing import Any

from bec_bluesky.documents import Document, metadata_word
from bec_bluesky.errors import SettingsError, choices
from writers._nexus_text import seconds

__all__ = ["FileTemplate", "file_word"]

_TIMES = ("year", "month", "day", "hour", "minute", "second")
_NUMBERS = (*_TIMES, "scan_id")
_WORDS = ("plan_name", "sample", "proposal", "user", "beamline", "uid")
_DEFAULTS = {"plan_name": "run", "uid": "run"}
_SUFFIXES = (".nxs", ".nx5", ".h5", ".hdf5")
_LITERAL = re.compile(r"[A-Za-z0-9_./-]*")
_WIDTH = re.compile(r"(0?[1-9]\d?d?)?")
_NOT_IN_FILES = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_PART = 150
"""Characters; a file's name may end in a uid too, and file systems allow 255 bytes."""


class FileTemplate:
    """A relative path such as `{proposal}/{year}/{scan_id:06d}_{plan_name}.nxs`.

    Fields are the numbers year, month, day, hour, minute, second (of the run's start, local time) and scan_id, and the
    words plan_name, sample, proposal, user, beamline and uid. A word becomes letters, digits, `_` and `-`, so that no
    metadata can leave the directory; metadata are never formatted by their own wishes. Raises SettingsError for any
    other field or format, an absolute path, `..`, a hidden name, or a suffix that is not .nxs, .nx5, .h5 or .hdf5.
    """

    def __init__(self, template: str) -> None:
        self.text = template
        try:
            self._pieces = list(Formatter().parse(template))
        except ValueError as error:
            raise self._wrong(str(error)) from error
        for literal, field, spec, conversion in self._pieces:
            if not _LITERAL.fullmatch(literal):
                raise self._wrong(f"{literal!r} has other characters than letters, digits, `_`, `-`, `.` and `/`")
            if field is not None:
                self._check_field(field, spec or "", conversion)
        parts = self._filled(dict.fromkeys((*_NUMBERS, *_WORDS), 1)).split("/")
        if any(part == "" or part.startswith(".") for part in parts):
            raise self._wrong("it must be a relative path without empty, hidden or `..` parts")
        if not parts[-1].endswith(_SUFFIXES):
            raise self._wrong(f"it must end in {', '.join(_SUFFIXES)}")

    def path(self, start: Document) -> PurePosixPath:
        """Give the path of a run's file, relative to the writer's directory."""
        moment = datetime.fromtimestamp(seconds(start.get("time")))
        scan_id = start.get("scan_id")
        values: dict[str, int | str] = {name: getattr(moment, name) for name in _TIMES}
        values["scan_id"] = max(0, scan_id) if isinstance(scan_id, int) else 0
        for word in _WORDS:
            values[word] = file_word(metadata_word(start, word), default=_DEFAULTS.get(word, f"no_{word}"))
        path = PurePosixPath(self._filled(values))
        folders = [part[:_LONGEST_PART] for part in path.parts[:-1]]
        return PurePosixPath(*folders, path.stem[:_LONGEST_PART] + path.suffix)

    def _check_field(self, field: str, spec: str, conversion: str | None) -> None:
        if field not in (*_NUMBERS, *_WORDS):
            raise self._wrong(f"no field {field!r}: {choices(field, (*_NUMBERS, *_WORDS), most=20)}")
        if conversion or (spec and field in _WORDS) or not _WIDTH.fullmatch(spec):
            raise self._wrong(
                f"{{{field}}} can have a width if it is a number, as in {{scan_id:06d}}, and nothing else"
            )

    def _filled(self, values: Mapping[str, int | str]) -> str:
        filled = ""
        for literal, field, spec, _ in self._pieces:
            filled += literal
            if field is not None:
                filled += format(values[field], spec or "")
        return filled

    def _wrong(self, why: str) -> SettingsError:
        return SettingsError(f"The template {self.text!r} names no run files: {why}")


def file_word(text: Any, *, default: str) -> str:
    """Give a word that is safe in a file name: letters, digits, `_` and `-`, at most 60 characters."""
    plain = "".join(each for each in unicodedata.normalize("NFKD", str(text)) if not unicodedata.combining(each))
    return _NOT_IN_FILES.sub("_", plain)[:60].strip("_-") or default
