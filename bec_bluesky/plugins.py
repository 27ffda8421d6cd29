"""Mount the instrument's content and list what it offers.

`plans`, `devices`, `callbacks` and `writers` are imported under the names they have on disk, from the instrument's own
directory first and from the default profile behind it. One module that cannot be imported is reported and skipped; it
never stops a service.
"""

import importlib
import importlib.util
import json
import math
import pkgutil
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from bec_bluesky.errors import PlugInError, SettingsError, choices
from bec_bluesky.fresh_modules import where_it_failed
from bec_bluesky.guards import Interlock, Suspender, read_interlocks, read_suspenders
from bec_bluesky.log import logger
from bec_bluesky.messages.queue import MAIN_QUEUE
from bec_bluesky.settings import DEFAULT_PROFILE, Settings

__all__ = [
    "KINDS",
    "Hosted",
    "Problem",
    "Profile",
    "WorkerLimits",
    "collection",
    "import_all",
    "load_object",
    "mount",
    "names",
    "read_profile",
    "read_rules",
    "users_of",
]

_SETTINGS = frozenset(
    {"title", "hosted", "environment", "companions", "metadata", "metadata_schema", "device_servers", "queues"}
    | {"queueserver", "worker", "suspenders", "interlocks"}
)
"""What `profile.toml` may have."""
KINDS = ("plans", "devices", "callbacks", "writers")
_QUEUE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_log = logger(__name__)


@dataclass(frozen=True)
class Problem:
    """A plug-in module that could not be imported."""

    module: str
    error: str

    def __str__(self) -> str:
        return f"{self.module} could not be imported: {self.error}"


@dataclass(frozen=True)
class Hosted:
    """One callback or writer that `profile.toml` asks for."""

    name: str
    use: str
    """`module:Class`, e.g. `writers.nexus:NexusWriter`."""
    process: str = "documents"
    """Entries with the same word share a process."""
    required: bool = True
    """Whether documents are kept on Redis until this one has stored them."""
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """Its typed parameters; `{data_dir}`, `{files_dir}` and `{profile_dir}` in a text are replaced."""


@dataclass(frozen=True)
class WorkerLimits:
    """After what a worker process is ended and replaced (`[worker]`)."""

    silence: float = 10.0
    """Seconds without a sign of life, as when a plan hangs in C code."""
    check: float = 8.0
    """Seconds for the check of an item."""
    halt: float = 5.0
    """Seconds that a plan may take to end when it is halted."""
    memory: float = 0.0
    """Megabytes (10⁶ bytes) that it may have in memory; 0: half of this machine's."""


@dataclass(frozen=True)
class Profile:
    """What `profile.toml` says."""

    path: Path
    title: str = ""
    hosted: tuple[Hosted, ...] = ()
    environment: dict[str, str] = field(default_factory=dict[str, str])
    """Environment variables for every service (EPICS addresses …)."""
    companions: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Commands that `up` runs beside the services, by name; `{python}` is this Python."""
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    """Goes into every start document (facility, beamline …)."""
    device_servers: tuple[str, ...] | None = None
    """Device servers that `up` starts on this machine; None: all that the device file names."""
    queues: tuple[str, ...] = ()
    """Names of queues beside the main one."""
    metadata_schema: dict[str, Any] = field(default_factory=dict[str, Any])
    """JSON schema of what people say of their runs; empty: anything."""
    environment_is_open: bool = False
    """Whether what clients of bluesky-queueserver call the environment is open from the start."""
    worker: WorkerLimits = WorkerLimits()
    suspenders: tuple[Suspender, ...] = ()
    """What holds every plan while a signal is bad."""
    interlocks: tuple[Interlock, ...] = ()
    """What is done when devices read what they must not."""

    @property
    def required(self) -> frozenset[str]:
        """Names of the hosted callbacks that must have a run before its documents go."""
        return frozenset(hosted.name for hosted in self.hosted if hosted.required)


def read_rules(settings: Settings) -> dict[str, Any] | None:
    """Read the instrument's `user_group_permissions.yaml`; None if there is none. Raises SettingsError for no YAML."""
    path = collection(settings) / "user_group_permissions.yaml"
    if not path.exists():
        return None
    from ruamel.yaml import YAML, YAMLError

    loader: Any = YAML(typ="safe", pure=True)
    try:
        content: Any = loader.load(path.read_text(encoding="utf-8"))
    except (OSError, YAMLError) as error:
        raise SettingsError(f"{path}: {error}") from None
    return content


def collection(settings: Settings) -> Path:
    """Give the directory of `profile.toml`, `devices.yaml` and `startup/`."""
    inside = settings.profile / "profile_collection"
    if inside.is_dir():
        return inside
    if settings.profile.is_dir():
        return settings.profile
    raise SettingsError(f"BEC_BLUESKY_PROFILE={settings.profile} is not a directory: name the instrument's profile")


def read_profile(settings: Settings) -> Profile:
    """Read and check `profile.toml`; raises SettingsError naming the file, the entry and the remedy."""
    path = collection(settings) / "profile.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            f"{path} is not there: every profile has a profile.toml, if only with `title = …`"
        ) from None
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None
    for key in content.keys() - _SETTINGS:
        raise SettingsError(f"{path}: no setting {key!r}: {choices(key, _SETTINGS)}")
    hosted = tuple(_hosted(path, number, entry) for number, entry in enumerate(content.get("hosted", []), 1))
    twice = {one.name for one in hosted if sum(one.name == other.name for other in hosted) > 1}
    if twice:
        raise SettingsError(f"{path}: [[hosted]] {', '.join(sorted(twice))} appears twice: give each a name of its own")
    companions = {str(name): tuple(map(str, command)) for name, command in content.get("companions", {}).items()}
    return Profile(
        path=path,
        title=str(content.get("title", "")),
        hosted=hosted,
        environment={str(name): str(value) for name, value in content.get("environment", {}).items()},
        companions=companions,
        metadata=dict(content.get("metadata", {})),
        device_servers=_device_servers(path, content.get("device_servers", {})),
        queues=_queues(path, content.get("queues", {})),
        metadata_schema=_metadata_schema(path, content.get("metadata_schema", {})),
        environment_is_open=_queueserver(path, content.get("queueserver", {})),
        worker=_worker(path, content.get("worker", {})),
        suspenders=read_suspenders(str(path), content.get("suspenders", [])),
        interlocks=read_interlocks(str(path), content.get("interlocks", [])),
    )


def _metadata_schema(path: Path, entry: Any) -> dict[str, Any]:
    """Read a schema that stands in the profile, or in the JSON file beside it that is named there; check it."""
    if not entry:
        return {}
    from jsonschema import SchemaError, validators

    where = f"{path}: [metadata_schema]"
    if not isinstance(entry, dict):
        raise SettingsError(f"{where} must be a table: a JSON schema, or file = a JSON file beside the profile")
    schema: Any = dict(entry)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # TOML's
    if "file" in schema and len(schema) == 1:
        where = str(path.parent / str(schema["file"]))
        try:
            schema = json.loads(Path(where).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path}: [metadata_schema] file = {schema['file']!r}: {error}") from None
    try:
        validators.validator_for(schema).check_schema(schema)
    except SchemaError as error:
        place = ".".join(map(str, error.absolute_path))
        raise SettingsError(f"{where} is no JSON schema: {f'{place}: ' if place else ''}{error.message}") from None
    return schema


def _queueserver(path: Path, entry: Any) -> bool:
    if not isinstance(entry, dict) or entry not in ({}, {"environment": "open"}, {"environment": "closed"}):
        raise SettingsError(f'{path}: [queueserver] is {entry!r}: it may have environment = "open" or "closed"')
    return entry == {"environment": "open"}


def _worker(path: Path, entry: Any) -> WorkerLimits:
    if not isinstance(entry, dict):
        raise SettingsError(f"{path}: worker must be a table: [worker]")
    values: dict[str, Any] = dict(entry)  # pyright: ignore[reportUnknownArgumentType]  # TOML keys are str
    known = [each.name for each in fields(WorkerLimits)]
    for key, value in values.items():
        if key not in known:
            raise SettingsError(f"{path}: [worker] has no setting {key!r}: {choices(key, known)}")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not (0 if key == "memory" else 1) <= value < math.inf:
            unit = "megabytes, 0 or more" if key == "memory" else "seconds, 1 or more"
            raise SettingsError(f"{path}: [worker] {key} = {value!r} must be a number of {unit}")
    return WorkerLimits(**values)


def _device_servers(path: Path, entry: Any) -> tuple[str, ...] | None:
    if not isinstance(entry, dict):
        raise SettingsError(f"{path}: device_servers must be a table: [device_servers]")
    values: dict[str, Any] = dict(entry)  # pyright: ignore[reportUnknownArgumentType]  # TOML keys are str
    for key in values.keys() - {"here"}:
        raise SettingsError(f"{path}: [device_servers] has no setting {key!r}: {choices(key, ['here'])}")
    here = values.get("here")
    if here is None:
        return None
    if not isinstance(here, list):
        raise SettingsError(f'{path}: [device_servers] here = {here!r} must be a list of names, e.g. ["main"]')
    names: list[Any] = list(here)  # pyright: ignore[reportUnknownArgumentType]  # TOML's lists may hold anything
    return tuple(map(str, names))


def _queues(path: Path, entry: Any) -> tuple[str, ...]:
    if not isinstance(entry, dict):
        raise SettingsError(f"{path}: queues must be a table: [queues]")
    values: dict[str, Any] = dict(entry)  # pyright: ignore[reportUnknownArgumentType]  # TOML keys are str
    for key in values.keys() - {"names"}:
        raise SettingsError(f"{path}: [queues] has no setting {key!r}: {choices(key, ['names'])}")
    names: Any = values.get("names", [])
    if not isinstance(names, list):
        raise SettingsError(f'{path}: [queues] names = {names!r} must be a list of names, e.g. ["main", "align"]')
    for name in names:  # pyright: ignore[reportUnknownVariableType]  # TOML's lists may hold anything
        if not isinstance(name, str) or not _QUEUE_NAME.fullmatch(name):
            raise SettingsError(f"{path}: [queues] {name!r} is no name: 1 to 32 of a-z 0-9 _ -, the first a letter")
    others: list[str] = [name for name in names if name != MAIN_QUEUE]  # pyright: ignore[reportUnknownVariableType]
    return tuple(dict.fromkeys(others))


def _hosted(path: Path, number: int, entry: Any) -> Hosted:
    where = f"{path}: [[hosted]] number {number}"
    if not isinstance(entry, dict):
        raise SettingsError(f"{where} must be a table")
    values: dict[str, Any] = dict(entry)  # pyright: ignore[reportUnknownArgumentType]  # TOML keys are str
    known = {"name", "use", "process", "required", "options"}
    for key in values.keys() - known:
        raise SettingsError(f"{where}: no setting {key!r}: {choices(key, known)}")
    for key in ("name", "use"):
        if not isinstance(values.get(key), str):
            raise SettingsError(f"{where}: {key} is missing or no text")
    if ":" not in values["use"]:
        raise SettingsError(f"{where}: use = {values['use']!r} must be 'module:Class'")
    return Hosted(**values)


# ── mounting ──────────────────────────────────────────────────────────────────────────────────────


def mount(settings: Settings) -> None:
    """Make `plans`, `devices`, `callbacks` and `writers` importable from the profile; harmless when repeated.

    Raises PlugInError if a stranger was already imported under one of these names.
    """
    for kind in KINDS:
        places = [str(base / kind) for base in _bases(settings) if (base / kind).is_dir()]
        present = sys.modules.get(kind)
        if present is not None:
            if getattr(present, "__path__", None) is not None and set(map(str, present.__path__)) & set(places):
                present.__path__ = places
                continue
            origin = getattr(present, "__file__", None) or "a namespace package"
            raise PlugInError(
                f"a module named {kind!r} ({origin}) hides the instrument's {kind}/: rename or uninstall it"
            )
        spec = ModuleSpec(kind, None, is_package=True)
        spec.submodule_search_locations = places
        sys.modules[kind] = importlib.util.module_from_spec(spec)
    importlib.invalidate_caches()


def _bases(settings: Settings) -> list[Path]:
    bases = [settings.profile, DEFAULT_PROFILE]
    return list(dict.fromkeys(bases))


def names(kind: str, *, private: bool = False) -> list[str]:
    """List the module names of a mounted kind (`plans.scans`, …), private ones left out unless asked for."""
    package = sys.modules[kind]
    found = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return [f"{kind}.{name}" for name in sorted(found) if private or not name.startswith("_")]


def users_of(name: str, among: Iterable[str]) -> list[str]:
    """List the imported modules that have a module, or something of it, in their namespace; theirs too, and so on."""
    users: dict[str, None] = {}
    found = [name]
    while found:
        used = found.pop()
        for each in among:
            module = sys.modules.get(each)
            if module is None or each in users or each == name:
                continue
            values = list(vars(module).values())
            if any(value is sys.modules.get(used) or getattr(value, "__module__", None) == used for value in values):
                users[each] = None
                found.append(each)
    return list(users)


def import_all(kind: str) -> tuple[list[ModuleType], list[Problem]]:
    """Import every module of a kind, entry points `bec_bluesky.<kind>` included."""
    modules: list[ModuleType] = []
    problems: list[Problem] = []
    for name in (*names(kind), *_from_entry_points(kind)):
        try:
            modules.append(importlib.import_module(name))
        except Exception as error:  # noqa: BLE001  # here a process meets a plug-in
            _log.warning("plug-in %s could not be imported: %s", name, error, exc_info=True)
            problems.append(Problem(name, where_it_failed(error)))
    return modules, problems


def _from_entry_points(kind: str) -> Iterator[str]:
    yield from dict.fromkeys(point.module for point in entry_points(group=f"bec_bluesky.{kind}"))


def load_object(name: str) -> Any:
    """Give `module:Object`; raises PlugInError that says what the module has."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # here a process meets a plug-in
        raise PlugInError(f"{name}: {module_name} could not be imported ({type(error).__name__}: {error})") from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [each for each in vars(module) if not each.startswith("_")]
            raise PlugInError(f"{module_name} has no {attribute!r}: {choices(attribute, public)}")
        found = getattr(found, part)
    return found
