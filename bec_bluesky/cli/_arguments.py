"""Arguments of plans from the command line: Python literals, in which bare names are texts. Nothing is evaluated."""

import ast
from typing import Any

from bec_bluesky.errors import BadArgumentError

__all__ = ["parse_arguments", "parse_metadata", "parse_value"]

_BRACKETS = "[({"


def parse_arguments(words: list[str]) -> tuple[list[Any], dict[str, Any]]:
    """Sort words into positional values and `key=value` ones.

    `[det] samx -5 5 num=11` gives `["det"], "samx", -5, 5` and `{"num": 11}`. Raises BadArgumentError.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        if word.startswith("--") and word[2:3].isalpha():
            raise BadArgumentError(f"{word!r} is an option: those stand before the plan (see --help)")
        name, is_named, text = word.partition("=")
        if is_named and name.isidentifier():
            if name in kwargs:
                raise BadArgumentError(f"{name}= is given twice: once is enough")
            kwargs[name] = parse_value(text)
        elif kwargs:
            raise BadArgumentError(f"{word!r} stands after {next(iter(kwargs))}=…: put what has no name first")
        else:
            args.append(parse_value(word))
    return args, kwargs


def parse_metadata(words: list[str]) -> dict[str, Any]:
    """Read `--meta key=value`; raises BadArgumentError."""
    unnamed, metadata = parse_arguments(words)
    if unnamed:
        raise BadArgumentError(f"--meta {words[0]}: write key=value")
    return metadata


def parse_value(text: str) -> Any:
    """Read one value: number, True, False, None, 'text', list, tuple (as list), dict, or bare words as text.

    `det1,det2` and `det,` are lists too, for shells in which `[…]` means something. What has brackets or quotes but
    cannot be read raises BadArgumentError, everything else is text.
    """
    stripped = text.strip()
    try:
        return _value(ast.parse(stripped, mode="eval").body)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        if stripped[:1] and stripped[0] in _BRACKETS + "'\"":
            reason = error.msg if isinstance(error, SyntaxError) else str(error)
            raise BadArgumentError(
                f"{text!r} cannot be read ({reason}): write [a, b], {{'key': 1}}, 'text', numbers or names"
            ) from None
        return text


def _value(node: ast.expr) -> Any:
    """Give the value of a literal; ValueError for everything that would have to be calculated."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=parent, attr=name):
            owner = _value(parent)
            if isinstance(parent, ast.Name | ast.Attribute):
                return f"{owner}.{name}"
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_value(each) for each in elements]
        case ast.Dict(keys=keys, values=values):
            return {_key(key): _value(value) for key, value in zip(keys, values, strict=True)}
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=ast.Constant(value=int() | float() as value)):
            if not isinstance(value, bool):
                return -value if isinstance(sign, ast.USub) else value
        case _:
            pass
    raise ValueError(f"{ast.unparse(node)!r} is no plain value")


def _key(node: ast.expr | None) -> str:
    if node is None:
        raise ValueError("** has no place here")
    return str(_value(node))
