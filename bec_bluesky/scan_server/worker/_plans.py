"""The plans that may be asked for: found, described, and imported anew while everything runs."""

import contextlib
import enum
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType, ModuleType
from typing import Any

import bluesky.plan_stubs
import bluesky.plans

from bec_bluesky import plugins
from bec_bluesky.errors import RefusedError, UnknownPlanError, choices
from bec_bluesky.fresh_modules import FreshModules
from bec_bluesky.log import logger
from bec_bluesky.messages.around_queue import KeptScript
from bec_bluesky.messages.queue import PlanInfo
from bec_bluesky.scan_server.worker._describe import describe, enumerations
from bec_bluesky.scan_server.worker._scripts import Guard, Scripts
from bec_bluesky.scan_server.worker._startup import StartupFiles
from bec_bluesky.settings import Settings

__all__ = ["OfferedPlan", "PlanRegistry"]

_log = logger(__name__)
_STUBS = ("mv", "mvr", "sleep")
"""Of `bluesky.plan_stubs`: what people do between plans."""
_INTERNAL = frozenset({"ramp_plan", "tweak", "inner_product_scan", "outer_product_scan", "relative_inner_product_scan"})
"""Of `bluesky.plans`: what takes a plan as argument, asks at a terminal, or is deprecated."""
_STARTUP = "startup"


@dataclass(frozen=True)
class OfferedPlan:
    """A plan and what is said of it."""

    function: Callable[..., Any]
    info: PlanInfo

    @property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.function)

    @functools.cached_property
    def enumerations(self) -> dict[str, type[enum.Enum]]:
        """Parameters that are enumerations: their values cross, and the plan gets the members."""
        return enumerations(self.function)


class PlanRegistry(Mapping[str, OfferedPlan]):
    """Plans by name: those of bluesky, over them those of libraries, of `plans/`, of `startup/`, of scripts.

    What can't be imported or described is a problem, told in one sentence, and costs nothing else. Looking plans up is
    safe while another thread loads them anew: it sees those of before, or those of after.
    """

    def __init__(self) -> None:
        self._modules: dict[str, ModuleType] = {}
        """In the order in which later ones hide earlier ones."""
        self._startup: StartupFiles | None = None
        self._scripts = Scripts({})
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

    @property
    def infos(self) -> list[PlanInfo]:
        return [plan.info for _, plan in sorted(self._plans.items())]

    def load(
        self,
        settings: Settings,
        namespace: dict[str, Any],
        scripts: Iterable[KeptScript] = (),
        only_looking: Guard = contextlib.nullcontext,
    ) -> None:
        """Find all plans; `startup/*.py`, then what scripts define, are executed in `namespace`.

        Of scripts only within `only_looking()`, since that comes again with each worker.
        """
        plugins.mount(settings)
        modules, problems = plugins.import_all("plans")
        in_place = [module for module in modules if module.__name__.startswith("plans.")]
        libraries = [module for module in modules if module not in in_place]
        self._modules = {module.__name__: module for module in libraries + in_place}
        self._startup = StartupFiles(plugins.collection(settings) / "startup", namespace)
        self._scripts = Scripts(namespace, only_looking)
        self.problems = [*map(str, problems), *self._startup.execute_all(), *self._scripts.take_all(scripts)]
        self._gather()

    def reload(self, name: str = "") -> list[str]:
        """Import a module of plans and those that use it anew, or execute a start-up file again; empty: all of both.

        Of the start-up files, all are those that changed. What fails stays as it was; gives the names of plans that
        are made of other code now. `problems` are those of this call. Raises RefusedError if there is no such module.
        """
        assert self._startup is not None
        before = self._fingerprints()
        self.problems = []
        files = [self._startup.find(name)] if name else self._startup.changed
        for file in filter(None, files):
            try:
                self._startup.execute(file)
            except RefusedError as error:
                self.problems.append(f"{error}; the version before it stays")
        if any(files):
            self.problems += self._scripts.take_again()
        if not name or files == [None]:
            self._import_anew(self._modules_meant_by(name))
        return self._changed_since(before)

    def take_script(self, script: KeptScript) -> list[str]:
        """Take up what a script defines; gives what `reload` gives. Raises RefusedError that says why it can't be."""
        before = self._fingerprints()
        self.problems = []
        self._scripts.take(script)
        return self._changed_since(before)

    def _fingerprints(self) -> dict[str, Any]:
        return {plan: _fingerprint(offered.function) for plan, offered in self._plans.items()}

    def _changed_since(self, before: dict[str, Any]) -> list[str]:
        self._gather()
        return sorted(plan for plan, print_ in self._fingerprints().items() if before.get(plan, print_) != print_)

    def _modules_meant_by(self, name: str) -> list[str]:
        in_place = plugins.names("plans", private=True)
        if not name:
            return in_place
        known = list(dict.fromkeys([*in_place, *self._modules]))
        wanted = name if name in known else f"plans.{name}"
        if wanted not in known:
            files = self._startup.names if self._startup is not None else []
            raise RefusedError(f"No module of plans {name!r}: {choices(name, [*known, *files])}", "unknown_module")
        return [wanted, *plugins.users_of(wanted, [*in_place, *self._modules])]

    def _import_anew(self, names: Iterable[str]) -> None:
        """Import modules anew, together; one that fails is left out, and told."""
        wanted = list(dict.fromkeys(names))
        while wanted:
            fresh = FreshModules(wanted)
            try:
                fresh.load()
            except RefusedError as error:
                text = str(error).removesuffix("; nothing was changed")
                _log.warning("%s", text, exc_info=True)
                kept = "the version before it stays" if fresh.culprit in self._modules else "it offers no plans"
                self.problems.append(f"{text}; {kept}")
                wanted.remove(fresh.culprit)
            else:
                break
        imported = {name: sys.modules[name] for name in wanted if name in self._modules or _is_public(name)}
        there = set(plugins.names("plans"))
        kept = {name: each for name, each in self._modules.items() if name in there or not name.startswith("plans.")}
        self._modules = kept | imported

    # ── what is offered ──

    def _gather(self) -> None:
        """Collect the plans of all sources, then put them in the place of those of before, at once."""
        found = dict(_of_bluesky())
        for module in self._modules.values():
            found |= dict(_of_module(module))
        namespace = self._startup.namespace if self._startup is not None else {}
        for name, function in list(namespace.items()):
            if not name.startswith("_") and _is_plan(function) and _globals(function) is namespace:
                found[name] = function
        before, plans = self._plans, dict[str, OfferedPlan]()
        for name, function in found.items():
            if name in before and before[name].function is function:
                plans[name] = before[name]
            elif (offered := self._described(name, function)) is not None:
                plans[name] = offered
        self._plans = plans

    def _described(self, name: str, function: Callable[..., Any]) -> OfferedPlan | None:
        try:
            return OfferedPlan(function, describe(name, function))
        except Exception as error:  # noqa: BLE001  # here a process meets a plug-in
            _log.warning("plan %s cannot be described", name, exc_info=True)
            self.problems.append(f"plan {name} cannot be described: {type(error).__name__}: {error}")
            return None


def _of_bluesky() -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, function in vars(bluesky.plans).items():
        is_its_own = _is_plan_of(function, bluesky.plans.__name__) and function.__name__ == name
        if is_its_own and name not in _INTERNAL and not name.startswith("_"):
            yield name, function
    for name in _STUBS:
        yield name, getattr(bluesky.plan_stubs, name)


def _of_module(module: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    listed = getattr(module, "__all__", None)
    for name in vars(module) if listed is None else listed:
        function = getattr(module, name, None)
        if listed is None and not _is_plan_of(function, module.__name__):
            continue
        if function is not None and not name.startswith("_") and _is_plan(function):
            yield name, function


def _is_public(name: str) -> bool:
    return not name.rpartition(".")[2].startswith("_")


def _is_plan(value: Any) -> bool:
    return callable(value) and not inspect.isclass(value) and inspect.isgeneratorfunction(inspect.unwrap(value))


def _is_plan_of(value: Any, module: str) -> bool:
    return _is_plan(value) and inspect.unwrap(value).__module__ == module


def _globals(function: Callable[..., Any]) -> Any:
    return getattr(inspect.unwrap(function), "__globals__", None)


def _fingerprint(function: Callable[..., Any]) -> Any:
    """Give what a function does and how it is called, as a value to compare; where it stands does not count."""
    plain = inspect.unwrap(function)
    code = getattr(plain, "__code__", None)
    return repr(inspect.signature(function)), getattr(plain, "__doc__", ""), code and _instructions(code)


def _instructions(code: CodeType) -> Any:
    constants = [_instructions(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return code.co_code, code.co_names, tuple(constants)
