"""What a device file and the files that it names say, with the place of everything."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from bec_bluesky.device_server._device_file import DeviceSpec, wrong_name
from bec_bluesky.device_server._happi import read_happi
from bec_bluesky.device_server._needs import build_order, references
from bec_bluesky.errors import SettingsError, choices

__all__ = ["Content", "plain", "read", "read_content", "read_text"]

_KEYS = {field.alias or key for key, field in DeviceSpec.model_fields.items()}
_KINDS = {
    "list_type": "must be a list: [{}]",
    "dict_type": "must be a mapping: {{key: value}}",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "model_type": "must be a mapping such as {{low: -1, high: 1}}",
    "string_type": "must be a text",
}


@dataclass
class Content:
    """All devices, and the files in which they stand."""

    path: Path
    specs: dict[str, DeviceSpec] = field(default_factory=dict[str, DeviceSpec])
    entries: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """What stands in the YAML files, without defaults."""
    databases: dict[str, Path] = field(default_factory=dict[str, Path])
    """Devices that come from a database, and from which."""
    texts: dict[Path, str] = field(default_factory=dict[Path, str])
    """Every file that was read."""

    def share(self, server: str) -> dict[str, DeviceSpec]:
        """Give the devices that a device server owns."""
        return {name: spec for name, spec in self.specs.items() if spec.server == server}


def read(path: Path) -> dict[str, DeviceSpec]:
    """Read the file and what it names; raises SettingsError with every mistake, a line each.

    A line says file, line, device and remedy.
    """
    return read_content(path).specs


def read_content(path: Path, instead: Mapping[Path, str] | None = None) -> Content:
    """Read the file and what it names, some texts not from the disk but as given; raises SettingsError as `read`."""
    reader = _Reader(Content(path), instead or {})
    reader.read(path, including=())
    reader.check_references()
    if reader.problems:
        raise SettingsError("\n".join(reader.problems))
    return reader.content


@dataclass(frozen=True)
class _Place:
    """Where an entry stands."""

    file: Path
    """The YAML file, into which edits go."""
    at: str
    """`file:line`, of a database if it is from one."""
    entry: Any
    """The YAML mapping, which knows the lines of its keys."""


class _Reader:
    def __init__(self, content: Content, instead: Mapping[Path, str]) -> None:
        self.content = content
        self.problems: list[str] = []
        self._instead = instead

    def read(self, path: Path, including: tuple[Path, ...]) -> None:
        if path in including:
            self.problems.append(f"{path}: includes itself by way of {including[-1]}")
            return
        text = self._text(path, f"{including[-1]}: include: " if including else "")
        found = None if text is None else self._parsed(path, text)
        if found is None:
            return
        self._check_keys(path, found)
        for name in self._list_of(path, found, "include", str, "file names: [motors.yaml]"):
            self.read(path.parent / name, (*including, path))
        defaults = self._defaults(path, found)
        devices = found.get("devices")
        if devices is None:
            devices = CommentedMap()
        if not isinstance(devices, CommentedMap):
            self.problems.append(f"{_at(path, found, 'devices')}: `devices:` must be a mapping of names to devices")
            return
        taken = self._read_sources(path, found, defaults, devices)
        for name, entry in devices.items():
            if name not in taken:
                self._take(name, entry, defaults, _Place(path, _at(path, devices, name), entry))

    def check_references(self) -> None:
        """Look for devices that are referred to and are not there, or belong to another server."""
        specs = self.content.specs
        if self.problems:
            return
        for name, spec in specs.items():
            for wanted in (*references(spec), *spec.needs):
                other = specs.get(wanted.partition(".")[0])
                if other is None:
                    problem = f"no device {wanted!r} to refer to: {choices(wanted, specs)}"
                elif other.server != spec.server:
                    problem = (
                        f"it needs {wanted!r}, which device server {other.server!r} owns: give both the same `server:`"
                    )
                else:
                    continue
                self.problems.append(f"{spec.origin}device {name}: {problem}")
        try:
            build_order(specs)
        except SettingsError as error:
            self.problems.append(str(error))

    # ── files ──

    def _text(self, path: Path, asked_by: str) -> str | None:
        try:
            text = self._instead.get(path)
            text = read_text(path) if text is None else text
        except FileNotFoundError:
            remedy = "correct its name, or make it" if asked_by else "a profile has one, if only with `devices: {}`"
            self.problems.append(f"{asked_by}{path} is not there: {remedy}")
        except UnicodeDecodeError as error:
            self.problems.append(f"{asked_by}{path}: is not UTF-8 ({error.reason} at byte {error.start}): save it so")
        except OSError as error:
            self.problems.append(f"{asked_by}{path}: {error.strerror}")
        else:
            self.content.texts[path] = text
            return text
        return None

    def _parsed(self, path: Path, text: str) -> CommentedMap | None:
        try:
            found: Any = YAML(typ="rt").load(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark is not None else ""
            what = " ".join(f"{error.context or ''} {error.problem or ''}".split())
            remedy = ": indent by spaces" if "\\t" in what else ""
            self.problems.append(f"{path}{line}: is no YAML: {what}{remedy}")
            return None
        except YAMLError as error:
            self.problems.append(f"{path}: is no YAML: {' '.join(str(error).split())}")
            return None
        if not isinstance(found, CommentedMap):
            self.problems.append(f"{path}: must be a mapping with `version: 1` and `devices:`")
            return None
        return found

    def _check_keys(self, path: Path, found: CommentedMap) -> None:
        known = {"version", "include", "sources", "defaults", "devices"}
        self.problems += [
            f"{_at(path, found, key)}: no key {key!r}: {choices(str(key), known)}" for key in found if key not in known
        ]
        if found.get("version") != 1 or isinstance(found.get("version"), bool):
            at = _at(path, found, "version")
            self.problems.append(f"{at}: version is {found.get('version')!r}; this system reads `version: 1`")

    def _list_of(self, path: Path, found: CommentedMap, key: str, kind: type, what: str) -> list[Any]:
        value = found.get(key)
        if value is None:
            return []
        if not isinstance(value, CommentedSeq) or not all(isinstance(each, kind) for each in value):
            self.problems.append(f"{_at(path, found, key)}: `{key}:` must be a list of {what}")
            return []
        return list(value)

    def _defaults(self, path: Path, found: CommentedMap) -> dict[str, Any]:
        """Give the defaults of a file, checked by themselves: a mistake is told once, not for every device."""
        defaults = found.get("defaults")
        if defaults is None:
            return {}
        at = _at(path, found, "defaults")
        if not isinstance(defaults, CommentedMap):
            self.problems.append(f"{at}: `defaults:` must be a mapping such as {{timeout: 10}}")
            return {}
        values = plain(defaults)
        if "class" in values:
            self.problems.append(f"{at}: defaults: there is no default class: give each device its own")
            return {}
        try:
            DeviceSpec.model_validate({"class": "a:B"} | values)
        except ValidationError as error:
            self._tell(error, "defaults", _Place(path, at, defaults))
            return {}
        return values

    def _read_sources(
        self, path: Path, found: CommentedMap, defaults: dict[str, Any], devices: CommentedMap
    ) -> set[str]:
        """Read the databases that a file names; give the names of its own entries that only add to theirs."""
        taken: set[str] = set()
        for source in self._list_of(path, found, "sources", CommentedMap, "databases: [{happi: db.json}]"):
            at = f"{path}:{source.lc.line + 1}"
            unknown = [str(key) for key in source if key not in ("happi", "where")]
            if unknown or not isinstance(source.get("happi"), str):
                key = unknown[0] if unknown else ""
                problem = f"no key {key!r}: {choices(key, ('happi', 'where'))}" if unknown else "name a database"
                self.problems.append(f"{at}: sources: {problem}; write {{happi: db.json}}")
                continue
            database = path.parent / source["happi"]
            text = self._text(database, f"{at}: sources: ")
            if text is not None:
                taken |= self._read_happi(path, database, text, plain(source.get("where") or {}), defaults, devices)
        return taken

    def _read_happi(
        self,
        path: Path,
        database: Path,
        text: str,
        where: dict[str, Any],
        defaults: dict[str, Any],
        devices: CommentedMap,
    ) -> set[str]:
        taken: set[str] = set()
        try:
            for item in read_happi(text, where):
                if isinstance(item, SettingsError):
                    self.problems.append(f"{database}:{item}")
                    continue
                self.content.databases[item.name] = database
                more = devices.get(item.name)
                if isinstance(more, CommentedMap):
                    taken.add(item.name)
                self._take(item.name, more, defaults | item.entry, _Place(path, f"{database}:{item.line}", more))
        except SettingsError as error:
            self.problems.append(f"{database}:{error}")
        return taken

    # ── devices ──

    def _take(self, name: Any, entry: Any, defaults: dict[str, Any], place: "_Place") -> None:
        """Take a device that `entry` describes, with what it leaves out from `defaults`."""
        at = place.at
        problem = wrong_name(name)
        if problem is not None:
            self.problems.append(f"{at}: device {name!r}: {problem}")
            return
        if entry is not None and not isinstance(entry, CommentedMap):
            self.problems.append(f"{at}: device {name}: must be a mapping with at least `class:`")
            return
        values = plain(entry or {})
        try:
            spec = DeviceSpec.model_validate(defaults | values).placed(f"{at}: ", place.file)
        except ValidationError as error:
            self._tell(error, f"device {name}", place)
            return
        if name in self.content.specs:
            other = self.content.specs[name].origin.removesuffix(": ")
            self.problems.append(
                f"{at}: device {name}: there is another one of that name in {other}: rename one of them"
            )
            return
        self.content.specs[name] = spec
        self.content.entries[name] = values

    def _tell(self, error: ValidationError, what: str, place: "_Place") -> None:
        """Say each mistake of an entry, with its line."""
        for each in error.errors():
            key = ".".join(str(part) for part in each["loc"])
            line = _line(place.entry, each["loc"][0]) if each["loc"] else None
            where = f"{place.file}:{line}" if line else place.at
            if each["type"] == "extra_forbidden":
                known = _KEYS if len(each["loc"]) == 1 else {"low", "high"}
                problem = f"no key {key!r}: {choices(key.rpartition('.')[2], known)}"
            elif each["type"] == "missing":
                problem = f"{key!r} is missing"
            else:
                kind = _KINDS.get(each["type"])
                message = kind.format(each["input"]) if kind else each["msg"].removeprefix("Value error, ")
                problem = f"{key} = {each['input']!r}: {message}"
            self.problems.append(f"{where}: {what}: {problem}")


def read_text(path: Path) -> str:
    """Read a file with its line ends as they are: they are written back so."""
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def plain(value: Any) -> Any:
    """Turn what the YAML reader keeps (comments, quotes) into plain values."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, TaggedScalar):
        return f"{value.tag.value} {value.value}"  # a tag means nothing here; the error shows it
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _at(path: Path, mapping: Any, key: Any) -> str:
    line = _line(mapping, key)
    return f"{path}:{line}" if line else str(path)


def _line(mapping: Any, key: Any) -> int | None:
    try:
        return int(mapping.lc.key(key)[0]) + 1
    except (AttributeError, KeyError, TypeError):
        return None
