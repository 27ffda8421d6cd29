"""Texts of a plan and of its parameters, from a docstring in the layout of numpydoc, of Google, or of Sphinx."""

import inspect
import re
from collections.abc import Callable
from typing import Any

__all__ = ["parameter_texts", "summary", "whole"]

_SECTION = re.compile(r"^(Parameters|Other Parameters)\n-{3,}\n(.*?)(?=^\S[^\n]*\n-{3,}\n|\Z)", re.M | re.S)
_ENTRY = re.compile(r"^`{0,2}\*{0,2}(\w[\w ,*]*?)`{0,2}\s*(?::\s*(.*))?$")

_GOOGLE = re.compile(
    r"^(?:Args|Arguments|Parameters|Keyword Args|Other Parameters):[ ]*\n((?:[ \t]+\S.*\n?|[ \t]*\n)*)", re.M
)
_GOOGLE_ENTRY = re.compile(r"^\*{0,2}(\w+)\s*(?:\(([^)]*)\))?:\s*(.*)$")
_SPHINX = re.compile(r"^:param\s+(?:[^:]*\s)?\*{0,2}(\w+):[ ]*(.*(?:\n[ \t]+\S.*)*)", re.M)


def whole(function: Callable[..., Any]) -> str:
    """Give the docstring without its indentation."""
    return inspect.getdoc(function) or ""


def summary(text: str) -> str:
    """Give the first paragraph in one line."""
    return " ".join(text.split("\n\n", 1)[0].split())


def parameter_texts(text: str) -> dict[str, str]:
    """Give the text of each parameter, in one line; its written type if it has no other text."""
    return _of_sphinx(text) | _of_google(text) | _of_numpy(text)


def _of_sphinx(text: str) -> dict[str, str]:
    return {found.group(1): " ".join(found.group(2).split()) for found in _SPHINX.finditer(text)}


def _of_google(text: str) -> dict[str, str]:
    types: dict[str, str] = {}
    lines: dict[str, list[str]] = {}
    for section in _GOOGLE.finditer(text):
        name = ""
        for line in inspect.cleandoc("\n" + section.group(1)).splitlines():
            entry = _GOOGLE_ENTRY.match(line)
            if entry is not None:
                name = entry.group(1)
                types[name], lines[name] = entry.group(2) or "", [entry.group(3)]
            elif name and line.startswith((" ", "\t")):
                lines[name].append(line)
    return {name: " ".join(" ".join(words).split()) or types[name] for name, words in lines.items()}


def _of_numpy(text: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    for section in _SECTION.finditer(text):
        names: list[str] = []
        written = ""
        lines: list[str] = []
        for line in [*section.group(2).splitlines(), "end"]:
            entry = _ENTRY.match(line)
            if entry is None:
                lines.append(line.strip())
                continue
            described = " ".join(" ".join(lines).split()) or written
            texts |= dict.fromkeys(names, described)
            names = [name.strip().lstrip("*") for name in entry.group(1).split(",")]
            written, lines = (entry.group(2) or "").strip(), []
    return texts
