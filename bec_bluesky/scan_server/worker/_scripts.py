"""Scripts that people send: executed as they are by a task, and only for what they define by everybody else."""

import ast
import builtins
import contextlib
import linecache
import symtable
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from bec_bluesky.errors import RefusedError
from bec_bluesky.fresh_modules import where_it_failed
from bec_bluesky.log import logger
from bec_bluesky.messages.around_queue import KeptScript

__all__ = ["Guard", "Scripts", "definitions", "restore"]

_log = logger(__name__)
Guard = Callable[[], contextlib.AbstractContextManager[None]]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_BLOCKS = (ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Match)
_NAMING = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
_BUILDING = frozenset({"add", "append", "extend", "insert", "setdefault", "update"})
"""Methods by which a script builds its own lists and tables."""
_ENGINE_STAYS = "RE stays the RunEngine of the queue: a script cannot replace it"
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

    def run(self, script_id: str, title: str, text: str) -> tuple[bool, str]:
        """Execute a script as it is; give whether it defines something that others should take up, and a note.

        Raises what it raises, and RefusedError, before anything is done, for what can't be taken up; the namespace is
        then as it was before.
        """
        name = title or f"script {script_id[:8]}"
        defines = definitions(text, name) is not None
        code = compile(ast.parse(text, filename=name), _remembered(name, text), "exec")
        self._name_devices()
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
        return defines, _ENGINE_STAYS if _keep_engine(self.namespace, before) else ""

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
        name = script.title or f"script {script.script_id[:8]}"
        tree = definitions(script.text, name)
        if tree is None:
            return
        self._name_devices()
        before = dict(self.namespace)
        try:
            with self._only_looking():
                exec(compile(tree, _remembered(name, script.text), "exec"), self.namespace)
        except Exception as error:  # here a process meets a plug-in
            restore(self.namespace, before)
            _log.warning("%s failed", name, exc_info=True)
            text = (
                f"what {name} defines cannot be taken up by workers: {where_it_failed(error)}; what is to be done once "
                "belongs into a function, or into a script of its own"
            )
            raise RefusedError(text, "script") from error
        _keep_engine(self.namespace, before)

    def _name_devices(self) -> None:
        """Have devices stand under their names, where those stand for nothing else."""
        devices: Mapping[str, Any] = self.namespace.get("devices", {})
        for name in devices:
            if name.isidentifier() and name not in self.namespace and not hasattr(builtins, name):
                self.namespace[name] = devices[name]


def definitions(text: str, name: str) -> ast.Module | None:
    """Give what of a script is executed again by others; None if that is nothing.

    It is nothing unless the script defines a function or a class, or does no more than to import and to name things.
    Calls for their effect are left out (`print(…)`, `caput(…)`), and loops and `with` blocks that make such calls: they
    were meant once. Raises RefusedError if what is left needs a name that stands for something made in such a block.
    """
    tree = ast.parse(text, filename=name)
    if not any(isinstance(each, _FUNCTIONS) for each in _at_top(tree.body)):
        return tree if _only_names_things(tree) else None
    left_out: list[ast.stmt] = []
    tree.body = [_without_effects(each, left_out) for each in tree.body]
    if left_out:
        needed = _needed_names(ast.unparse(tree))
        for block in left_out:
            if names := sorted(needed & _made_names(block)):
                raise RefusedError(
                    f"{name} defines something that needs {names[0]}, and the block of line {block.lineno} "
                    "that makes it does more, which workers would do again: put that into a function, or into a "
                    "script of its own; nothing was done",
                    "script",
                )
    return tree


def restore(namespace: dict[str, Any], before: dict[str, Any]) -> None:
    """Make a namespace what it was; no name that was there is missing meanwhile."""
    for key in namespace.keys() - before.keys():
        del namespace[key]
    namespace.update(before)


def _without_effects(node: ast.stmt, left_out: list[ast.stmt]) -> ast.stmt:
    """Give what is left of a statement; whole blocks that are left out are noted."""
    if isinstance(node, ast.Expr) and not _is_set_up(node.value):
        return ast.copy_location(ast.Pass(), node)
    if isinstance(node, _BLOCKS) and any(
        isinstance(each, ast.Expr) and not _is_set_up(each.value) for each in _at_top([node])
    ):
        left_out.append(node)
        return ast.copy_location(ast.Pass(), node)
    if isinstance(node, ast.If | ast.Try):
        for statements in _blocks_of(node):
            statements[:] = [_without_effects(each, left_out) for each in statements]
    return node


def _only_names_things(tree: ast.Module) -> bool:
    are_names = [isinstance(each, _NAMING) for each in tree.body]
    return bool(are_names) and all(are_names) and not any(isinstance(each, ast.Call) for each in ast.walk(tree))


def _made_names(block: ast.stmt) -> set[str]:
    """Give the names that a block of the module assigns or defines, and those of what it fills."""
    symbols = symtable.symtable(ast.unparse(block), "the script", "exec").get_symbols()
    made = {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}
    for each in ast.walk(block):
        if isinstance(each, ast.Subscript | ast.Attribute) and (
            isinstance(each.ctx, ast.Store) or getattr(each, "attr", "") in _BUILDING
        ):
            made.add(_root(each))
    return made


def _root(node: ast.expr) -> str:
    """Give the name with which `a.b[c].d` begins, if it begins with one."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _needed_names(text: str) -> set[str]:
    """Give the names of the module that a text uses, in functions too."""

    def used(table: symtable.SymbolTable, is_module: bool) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (is_module or symbol.is_global()):
                yield symbol.get_name()
        for child in table.get_children():
            yield from used(child, False)

    return set(used(symtable.symtable(text, "the script", "exec"), True))


def _is_set_up(value: ast.expr) -> bool:
    """Whether an expression that stands alone only sets up what is defined; texts and names do nothing at all."""
    if not isinstance(value, ast.Call):
        return isinstance(value, ast.Constant | ast.Name)
    function = value.func
    if isinstance(function, ast.Attribute) and function.attr in _BUILDING:
        return True
    return isinstance(function, ast.Attribute) and _root(function) in _SETTING_UP


def _at_top(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Give statements and those within them, leaving out the insides of functions and classes."""
    for each in statements:
        yield each
        if not isinstance(each, _FUNCTIONS):
            for inner in _blocks_of(each):
                yield from _at_top(inner)


def _blocks_of(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    for part in ("body", "orelse", "finalbody"):
        if statements := getattr(node, part, []):
            yield statements
    for branch in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
        yield branch.body


def _keep_engine(namespace: dict[str, Any], before: dict[str, Any]) -> bool:
    """Put the RunEngine back; give whether another one stood in its place."""
    engine = before.get("RE")
    is_replaced = engine is not None and namespace.get("RE") is not engine
    if is_replaced:
        namespace["RE"] = engine
    return is_replaced


def _remembered(name: str, text: str) -> str:
    """Give the name under which a script stands in tracebacks; its lines are shown there."""
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    return name
