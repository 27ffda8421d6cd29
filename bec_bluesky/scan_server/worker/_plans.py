"""The plans that may be asked for, and their descriptions as data."""

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import bluesky.plan_stubs
import bluesky.plans
import bluesky.protocols

from bec_bluesky import plugins
from bec_bluesky.errors import UnknownPlanError
from bec_bluesky.log import logger
from bec_bluesky.messages.queue import Parameter, PlanInfo
from bec_bluesky.scan_server.worker._annotations import accepts_of, as_written
from bec_bluesky.scan_server.worker._docstrings import parameter_texts, summary, whole
from bec_bluesky.scan_server.worker._groups import group_of
from bec_bluesky.settings import Settings

__all__ = ["OfferedPlan", "PlanRegistry", "describe"]

_log = logger(__name__)
_STUBS = ("mv", "mvr", "sleep")
"""Of `bluesky.plan_stubs`: what people do between plans."""
_INTERNAL = frozenset({"ramp_plan", "inner_product_scan", "outer_product_scan", "relative_inner_product_scan"})
"""Of `bluesky.plans`: what takes a plan as argument, and what is deprecated."""
_CALLBACKS = frozenset({"per_step", "per_shot"})
_OR_NOTHING = {"kind": "nothing"}
_LONGEST_DEFAULT = 200


@dataclass(frozen=True)
class OfferedPlan:
    """A plan and what is said of it."""

    function: Callable[..., Any]
    info: PlanInfo

    @property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.function)


class PlanRegistry(Mapping[str, OfferedPlan]):
    """Plans by name: those of bluesky, over them those of libraries, of `plans/`, and of `startup/`.

    What can't be imported or described is a problem, told in one sentence, and costs nothing else.
    """

    def __init__(self) -> None:
        self._plans: dict[str, OfferedPlan] = {}
        self.problems: list[str] = []

    def __getitem__(self, name: str) -> OfferedPlan:
        found = self._plans.get(name)
        if found is None:
            raise UnknownPlanError(name, self._plans)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._plans)

    def __len__(self) -> int:
        return len(self._plans)

    def __contains__(self, name: object) -> bool:
        return name in self._plans

    def load(self, settings: Settings, namespace: dict[str, Any]) -> None:
        """Find all plans; `startup/*.py` are executed in `namespace`."""
        self._add_bluesky()
        plugins.mount(settings)
        modules, problems = plugins.import_all("plans")
        self.problems += map(str, problems)
        in_place = [module for module in modules if module.__name__.startswith("plans.")]
        for module in [each for each in modules if each not in in_place] + in_place:
            self._add_module(module)
        self._run_startup(settings, namespace)

    def _add_bluesky(self) -> None:
        for name, function in vars(bluesky.plans).items():
            is_its_own = _is_plan_of(function, bluesky.plans.__name__) and function.__name__ == name
            if is_its_own and name not in _INTERNAL and not name.startswith("_"):
                self._add(name, function)
        for name in _STUBS:
            self._add(name, getattr(bluesky.plan_stubs, name))

    def _add_module(self, module: ModuleType) -> None:
        listed = getattr(module, "__all__", None)
        for name in vars(module) if listed is None else listed:
            function = getattr(module, name, None)
            if listed is None and not _is_plan_of(function, module.__name__):
                continue
            if function is not None and not name.startswith("_") and _is_plan(function):
                self._add(name, function)

    def _run_startup(self, settings: Settings, namespace: dict[str, Any]) -> None:
        namespace["__name__"] = "startup"
        for path in sorted((plugins.collection(settings) / "startup").glob("*.py")):
            namespace["__file__"] = str(path)
            try:
                exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), namespace)
            except Exception as error:  # noqa: BLE001  # here a process meets a plug-in
                _log.warning("%s failed", path, exc_info=True)
                self.problems.append(f"{path} failed: {type(error).__name__}: {error}")
        for name, function in list(namespace.items()):
            if not name.startswith("_") and _is_plan(function) and _globals(function) is namespace:
                self._add(name, function)

    def _add(self, name: str, function: Callable[..., Any]) -> None:
        try:
            self._plans[name] = OfferedPlan(function, describe(name, function))
        except Exception as error:  # noqa: BLE001  # here a process meets a plug-in
            _log.warning("plan %s cannot be described", name, exc_info=True)
            self.problems.append(f"plan {name} cannot be described: {type(error).__name__}: {error}")

    @property
    def infos(self) -> list[PlanInfo]:
        return [plan.info for _, plan in sorted(self._plans.items())]


def _is_plan(value: Any) -> bool:
    return callable(value) and not inspect.isclass(value) and inspect.isgeneratorfunction(inspect.unwrap(value))


def _is_plan_of(value: Any, module: str) -> bool:
    return _is_plan(value) and inspect.unwrap(value).__module__ == module


def _globals(function: Callable[..., Any]) -> Any:
    return getattr(inspect.unwrap(function), "__globals__", None)


# ── description ───────────────────────────────────────────────────────────────────────────────────


def describe(name: str, function: Callable[..., Any]) -> PlanInfo:
    """Describe a plan from its signature and its docstring."""
    text = whole(function)
    texts = parameter_texts(text)
    hints = _hints(function)
    parameters = [
        _parameter(name, each, hints.get(each.name, each.annotation), texts.get(each.name, ""))
        for each in inspect.signature(function).parameters.values()
    ]
    return PlanInfo(
        name=name, module=inspect.unwrap(function).__module__, summary=summary(text), text=text, parameters=parameters
    )


def _parameter(plan: str, given: inspect.Parameter, annotation: Any, text: str) -> Parameter:
    accepts = accepts_of(annotation)
    if given.kind is inspect.Parameter.VAR_POSITIONAL:
        accepts = group_of(plan, text) or accepts
    elif given.name in _CALLBACKS:
        accepts = {"kind": "any_of", "of": [{"kind": "callable"}, _OR_NOTHING]}
    elif given.name == "md" and accepts is None:
        accepts = {"kind": "any_of", "of": [{"kind": "mapping"}, _OR_NOTHING]}
    if accepts is not None and given.default is None and accepts["kind"] not in ("any", "any_of", "nothing"):
        accepts = {"kind": "any_of", "of": [accepts, _OR_NOTHING]}  # `motor: Movable = None`
    has_default = given.default is not inspect.Parameter.empty
    return Parameter(
        name=given.name,
        kind=given.kind.name.lower(),  # pyright: ignore[reportArgumentType]  # the names are the literals
        annotation=as_written(annotation),
        accepts=accepts,
        has_default=has_default,
        default=repr(given.default)[:_LONGEST_DEFAULT] if has_default else "",
        text=text or str((accepts or {}).get("text", "")),
    )


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Evaluate annotations; one that can't be is looked up among bluesky's protocols, else stays as it is written."""
    plain = inspect.unwrap(function)
    try:
        return typing.get_type_hints(plain, include_extras=True)
    except Exception:  # noqa: BLE001  # names that only a type checker imports
        known = vars(typing) | vars(bluesky.protocols) | getattr(plain, "__globals__", {})
        return {name: _evaluated(each, known) for name, each in getattr(plain, "__annotations__", {}).items()}


def _evaluated(annotation: Any, known: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, known)
    except Exception:  # noqa: BLE001  # a name that nobody knows
        return annotation
