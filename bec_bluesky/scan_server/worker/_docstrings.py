"""Texts of a plan and of its parameters, from a docstring in numpydoc's layout."""

import inspect
import re
from collections.abc import Callable
from typing import Any

__all__ = ["parameter_texts", "summary", "whole"]

_SECTION = re.compile(r"^(Parameters|Other Parameters)\n-{3,}\n(.*?)(?=^\S[^\n]*\n-{3,}\n|\Z)", re.M | re.S)
_ENTRY = re.compile(r"^`{0,2}\*{0,2}(\w[\w ,*]*?)`{0,2}\s*(?::\s*(.*))?$")


def whole(function: Callable[..., Any]) -> str:
    """Give the docstring without its indentation."""
    return inspect.getdoc(function) or ""


def summary(text: str) -> str:
    """Give the first paragraph in one line."""
    return " ".join(text.split("\n\n", 1)[0].split())


def parameter_texts(text: str) -> dict[str, str]:
    """Give the text of each parameter, in one line, its written type first if it has no other text."""
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
