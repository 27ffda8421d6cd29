"""Scripts that people send: executed as they are by a task, and only for what they define by everybody else."""

import ast
import contextlib
import linecache
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bec_bluesky.errors import RefusedError
from bec_bluesky.fresh_modules import where_it_failed
from bec_bluesky.log import logger
from bec_bluesky.messages.around_queue import KeptScript

__all__ = ["Guard", "Scripts", "definitions", "restore"]

_log = logger(__name__)
Guard = Callable[[], contextlib.AbstractContextManager[None]]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_COMPOUND = (ast.For, ast.While, ast.With, ast.Match)
_BUILDING = frozenset({"add", "append", "extend", "insert", "setdefault", "update"})
"""Methods by which a script builds its own lists and tables."""
_SETTING_UP = frozenset({"RE", "sys", "warnings"})
"""`RE.subscribe(…)`, `sys.path.insert(…)`, `warnings.filterwarnings(…)` set up what is defined."""


class Scripts:
    """Scripts in the namespace of the start-up files."""

    def __init__(self, namespace: dict[str, Any], only_looking: Guard = contextlib.nullcontext) -> None:
        """What scripts define is taken up within `only_looking()`: it must move nothing."""
        self.namespace = namespace
        self._only_looking = only_looking
        self._known: dict[str, KeptScript] = {}
        """Those that were run or taken up here, in order."""

    def run(self, script_id: str, title: str, text: str) -> bool:
        """Execute a script as it is; give whether it defines something that others should take up.

        Raises what it raises, and RefusedError, before anything is done, for what can't be taken up; the namespace is
        then as it was before.
        """
        defines = definitions(text, title) is not None
        code = compile(_parsed(text, title), _remembered(title, text), "exec")
        before = dict(self.namespace)
        self.namespace["__name__"] = "__main__"
        try:
            exec(code, self.namespace)
        except BaseException:
            restore(self.namespace, before)
            raise
        finally:
            self.namespace["__name__"] = before.get("__name__", "startup")
        if defines:
            self._known[script_id] = KeptScript(script_id=script_id, title=title, text=text)
        return defines

    def take(self, script: KeptScript) -> None:
        """Execute what a script defines, unless that was done here; raises RefusedError that says why it can't be.

        The namespace is then as it was before.
        """
        if script.script_id in self._known:
            return
        self._execute_definitions(script)
        self._known[script.script_id] = script

    def take_all(self, scripts: Iterable[KeptScript]) -> Iterator[str]:
        """Take up scripts, one after the other; gives a problem, in one sentence, for each that fails."""
        for script in scripts:
            try:
                self.take(script)
            except RefusedError as error:
                yield str(error)

    def take_again(self) -> Iterator[str]:
        """Take up again what start-up files that were executed anew may have hidden; gives problems."""
        known, self._known = self._known, {}
        return self.take_all(known.values())

    def _execute_definitions(self, script: KeptScript) -> None:
        tree = definitions(script.text, script.title)
        if tree is None:
            return
        before = dict(self.namespace)
        try:
            with self._only_looking():
                exec(compile(tree, _remembered(script.title, script.text), "exec"), self.namespace)
        except Exception as error:  # here a process meets a plug-in
            restore(self.namespace, before)
            _log.warning("%s failed", _name(script.title), exc_info=True)
            text = f"what {_name(script.title)} defines cannot be taken up: {where_it_failed(error)}"
            raise RefusedError(text, "script") from error


def definitions(text: str, title: str) -> ast.Module | None:
    """Give what of a script is executed again by others; None if it defines no function and no class.

    Calls for their effect are left out (`print(…)`, `caput(…)`): they were meant once. Raises RefusedError if they
    stand in a loop of the module, since what the loop builds is then unknown.
    """
    tree = _parsed(text, title)
    if not any(isinstance(each, _FUNCTIONS) for each in _at_top(tree.body)):
        return None
    tree.body = [_without_effects(each, title) for each in tree.body]
    return tree


def restore(namespace: dict[str, Any], before: dict[str, Any]) -> None:
    """Make a namespace what it was; no name that was there is missing meanwhile."""
    for key in namespace.keys() - before.keys():
        del namespace[key]
    namespace.update(before)


def _without_effects(node: ast.stmt, title: str) -> ast.stmt:
    if isinstance(node, ast.Expr) and not _is_set_up(node.value):
        return ast.copy_location(ast.Pass(), node)
    if isinstance(node, _COMPOUND):
        for each in ast.walk(node):
            if isinstance(each, ast.Expr) and not _is_set_up(each.value):
                raise RefusedError(
                    f"{_name(title)} defines something, and does something in the block of line {node.lineno} that "
                    "workers would do again: put that into a function, or into a script of its own; nothing was done",
                    "script",
                )
    if isinstance(node, ast.If | ast.Try):
        for part in ("body", "orelse", "finalbody"):
            statements: list[ast.stmt] = getattr(node, part, [])
            statements[:] = [_without_effects(each, title) for each in statements]
        for handler in getattr(node, "handlers", []):
            handler.body[:] = [_without_effects(each, title) for each in handler.body]
    return node


def _is_set_up(value: ast.expr) -> bool:
    """Whether an expression that stands alone only sets up what is defined; texts and names do nothing at all."""
    if not isinstance(value, ast.Call):
        return isinstance(value, ast.Constant | ast.Name)
    function = value.func
    if isinstance(function, ast.Attribute) and function.attr in _BUILDING:
        return True
    root = function
    while isinstance(root, ast.Attribute):
        root = root.value
    return isinstance(function, ast.Attribute) and isinstance(root, ast.Name) and root.id in _SETTING_UP


def _at_top(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for each in statements:
        yield each
        for part in ("body", "orelse", "finalbody"):
            if not isinstance(each, _FUNCTIONS):
                yield from _at_top(getattr(each, part, []))


def _parsed(text: str, title: str) -> ast.Module:
    return ast.parse(text, filename=_name(title))


def _remembered(title: str, text: str) -> str:
    """Give the name under which a script stands in tracebacks, and have its lines shown there."""
    name = _name(title)
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    return name


def _name(title: str) -> str:
    return title or "the script"
