"""The device file: which devices exist, checked before any hardware is touched."""

import keyword
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from bec_bluesky.errors import SettingsError, choices

__all__ = ["DeviceSpec", "Limits", "json_schema", "read"]


class Limits(BaseModel):
    """What `set` may be given, in the device's units; enforced besides the hardware's own limits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float
    high: float

    @field_validator("high")
    @classmethod
    def _above_low(cls, high: float, info: Any) -> float:
        low = info.data.get("low")
        if low is not None and not low < high:
            raise ValueError(f"must be above low ({low:g})")
        return high


class DeviceSpec(BaseModel):
    """One device of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    class_: str = Field(alias="class", description="'package.module:Name' of a class, or of a factory (async too)")
    args: list[Any] = Field(default_factory=list)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    set: dict[str, Any] = Field(
        default_factory=dict, description="applied after connecting: a dotted signal is set, another attribute assigned"
    )
    labels: list[str] = Field(default_factory=list)
    readout: Literal["monitored", "baseline", "async", "on_request", "continuous"] = "monitored"
    limits: Limits | None = None
    enabled: bool = True
    read_only: bool = False
    on_failure: Literal["raise", "retry", "buffer", "ignore"] = Field(
        default="raise", description="of read(), never of set()"
    )
    connect: Literal["required", "optional", "lazy"] = Field(
        default="optional",
        description="required: the server refuses to start; optional: listed as failed and tried again; "
        "lazy: connected when it is first used",
    )
    timeout: float = Field(default=5.0, gt=0, description="seconds to connect")
    fresh: bool = Field(default=False, description="read past the cache of a monitored signal (ophyd-async)")
    blocking: bool = Field(default=False, description="its methods take long: a thread of its own")
    needs: list[str] = Field(default_factory=list, description="devices that must be built before it")
    server: str = Field(
        default="main",
        pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$",
        description="device server that owns it; `bec-bluesky up` starts one process for each name",
    )
    _origin: str = PrivateAttr(default="")

    @property
    def origin(self) -> str:
        """`file:line: `, for the text of an error."""
        return self._origin

    @field_validator("class_")
    @classmethod
    def _names_an_object(cls, value: str) -> str:
        module, colon, name = value.partition(":")
        if not (module and colon and name):
            raise ValueError(f"{value!r} must be 'package.module:Name'")
        return value


def json_schema() -> dict[str, Any]:
    """Give a JSON schema of the file, for editors."""
    return {
        "type": "object",
        "required": ["version", "devices"],
        "properties": {
            "version": {"const": 1},
            "include": {"type": "array", "items": {"type": "string"}},
            "defaults": {"type": "object"},
            "devices": {"type": "object", "additionalProperties": DeviceSpec.model_json_schema(by_alias=True)},
        },
    }


def read(path: Path) -> dict[str, DeviceSpec]:
    """Read the file and what it includes; raises SettingsError with every mistake, a line each.

    A line says file, line, device and remedy.
    """
    found: dict[str, DeviceSpec] = {}
    problems: list[str] = []
    _read_into(path, found, problems, including=())
    if not problems:
        problems += _unknown_references(path, found)
    if problems:
        raise SettingsError("\n".join(problems))
    return found


def _read_into(path: Path, found: dict[str, DeviceSpec], problems: list[str], including: tuple[Path, ...]) -> None:
    if path in including:
        problems.append(f"{path}: includes itself by way of {including[-1]}")
        return
    try:
        content: Any = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        where = f"{including[-1]}: include: " if including else ""
        problems.append(f"{where}{path} is not there: a profile has a devices.yaml, if only with `devices: {{}}`")
        return
    except (OSError, YAMLError) as error:
        problems.append(f"{path}: {' '.join(str(error).split())}")
        return
    if not isinstance(content, CommentedMap):
        problems.append(f"{path}: must be a mapping with `version: 1` and `devices:`")
        return
    known = {"version", "include", "defaults", "devices"}
    problems += [
        f"{_at(path, content, key)}: no key {key!r}: {choices(str(key), known)}" for key in content if key not in known
    ]
    if content.get("version") != 1:
        problems.append(f"{path}: version is {content.get('version')!r}; this system reads `version: 1`")
    for name in content.get("include") or ():
        _read_into(path.parent / str(name), found, problems, (*including, path))
    defaults = _plain(content.get("defaults") or {})
    devices = content.get("devices") or CommentedMap()
    if not isinstance(devices, CommentedMap):
        problems.append(f"{path}: `devices:` must be a mapping of names to devices")
        return
    for name, entry in devices.items():
        where = _at(path, devices, name)
        spec = _spec(where, name, entry, defaults, problems)
        if spec is not None and str(name) in found:
            problems.append(f"{where}: device {name}: there is another one of that name; rename one of them")
        elif spec is not None:
            found[str(name)] = spec


def _spec(where: str, name: Any, entry: Any, defaults: dict[str, Any], problems: list[str]) -> DeviceSpec | None:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        problems.append(
            f"{where}: device {name!r}: a name is made of letters, digits and '_', and is no Python keyword"
        )
        return None
    if not isinstance(entry, Mapping):
        problems.append(f"{where}: device {name}: must be a mapping with at least `class:`")
        return None
    try:
        spec = DeviceSpec.model_validate(defaults | _plain(entry))
    except ValidationError as error:
        for each in error.errors():
            place = ".".join(str(part) for part in each["loc"])
            line = _line(entry, each["loc"][0]) if each["loc"] else None
            at = f"{where.rpartition(':')[0]}:{line}" if line else where
            if each["type"] == "extra_forbidden":
                known = {field.alias or key for key, field in DeviceSpec.model_fields.items()}
                problems.append(f"{at}: device {name}: no key {place!r}: {choices(place, known)}")
            elif each["type"] == "missing":
                problems.append(f"{at}: device {name}: {place!r} is missing")
            else:
                message = each["msg"].removeprefix("Value error, ")
                problems.append(f"{at}: device {name}: {place} = {each['input']!r}: {message}")
        return None
    spec._origin = f"{where}: "
    return spec


def _unknown_references(path: Path, found: dict[str, DeviceSpec]) -> list[str]:
    problems: list[str] = []
    for name, spec in found.items():
        for wanted in (*references(spec), *spec.needs):
            if wanted.partition(".")[0] not in found:
                problems.append(
                    f"{spec.origin}device {name}: no device {wanted!r} to refer to: {choices(wanted, found)}"
                )
    return problems


def references(spec: DeviceSpec) -> list[str]:
    """Give every `$ref` in the arguments of a device."""
    return [*_references(spec.args), *_references(spec.kwargs)]


def _references(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        if set(value) == {"$ref"}:
            return [str(value["$ref"])]
        return [name for each in value.values() for name in _references(each)]
    if isinstance(value, list):
        return [name for each in value for name in _references(each)]
    return []


def _plain(value: Any) -> Any:
    """Turn what the YAML reader keeps (comments, quotes) into plain values."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
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
