"""What the device file may say of a device; the file itself is read by `_content`."""

import keyword
import math
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from bec_bluesky.errors import choices

__all__ = ["RESERVED_NAMES", "DeviceSpec", "Limits", "json_schema", "wrong_name"]

RESERVED_NAMES = frozenset({"get", "items", "keys", "select", "values"})
"""Methods of the mappings by which people and plans find devices: `bl.dev.get` must stay what it is."""
_SERVER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_OBJECT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class Limits(BaseModel):
    """What `set` may be given, in the device's units; enforced besides the hardware's own limits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float = Field(description="lowest value; -.inf for none")
    high: float = Field(description="highest value; .inf for none")

    @field_validator("low", "high")
    @classmethod
    def _is_a_number(cls, value: float) -> float:
        if math.isnan(value):
            raise ValueError("is no number; write -.inf or .inf for no limit")
        return value

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

    class_: str = Field(
        alias="class",
        description="'package.module:Name' of a class, or of a factory (async too)",
        json_schema_extra={"pattern": f"^{_OBJECT.pattern}$"},
    )
    args: list[Any] = Field(
        default_factory=list,
        description="positional arguments; made what the signature's annotations say (2 → 2.0, text → Path, Enum). "
        "{$ref: samx.readback} is another device or a part of one, {$obj: 'module:Name', $args: […], key: …} an object "
        "made of these arguments, {$type: float} a type; {files_dir} and {data_dir} in a text are filled in",
    )
    kwargs: dict[str, Any] = Field(
        default_factory=dict, description="arguments by name, as in `args`; `name` is given by itself"
    )
    set: dict[str, Any] = Field(
        default_factory=dict, description="applied after connecting: a dotted signal is set, another attribute assigned"
    )
    labels: list[str] = Field(default_factory=list, description="words by which people and plans find devices")
    readout: Literal["monitored", "baseline", "async", "on_request", "continuous"] = Field(
        default="monitored",
        description="when runs read it. baseline: before and after every run; continuous: at each change during a run "
        "(a signal, which plans then do not monitor themselves); the others: where plans name it",
    )
    limits: Limits | None = Field(default=None, description="enforced by the device server, besides the hardware's own")
    enabled: bool = Field(default=True, description="false: neither built nor connected, but listed")
    read_only: bool = Field(default=False, description="true: never set")
    on_failure: Literal["raise", "retry", "buffer", "ignore"] = Field(
        default="raise", description="of read(), never of set(): try once more, give the last reading, or leave it out"
    )
    connect: Literal["required", "optional", "lazy"] = Field(
        default="optional",
        description="required: the server refuses to start; optional: listed as failed and tried again; "
        "lazy: connected when it is first used",
    )
    timeout: float = Field(default=5.0, gt=0, description="seconds to connect")
    fresh: bool = Field(default=False, description="read past the cache of a monitored signal (ophyd-async)")
    blocking: bool = Field(default=False, description="its methods take long: a thread of its own")
    call_timeout: float | None = Field(
        default=60.0,
        gt=0,
        description="seconds in which a call (read, describe, the start of a move) must return; none: no limit, "
        "as for `blocking` devices",
    )
    done_timeout: float | None = Field(
        default=None,
        gt=0,
        description="seconds in which what was started (set, trigger, complete) must be done; none: no limit",
    )
    on_client_lost: Literal["stop", "continue"] = Field(
        default="stop", description="what to do with what a client moved or staged that died meanwhile"
    )
    needs: list[str] = Field(default_factory=list, description="devices that must be built before it")
    server: str = Field(
        default="main",
        description="device server that owns it; `bec-bluesky up` starts one process for each name",
        json_schema_extra={"pattern": f"^{_SERVER.pattern}$"},
    )
    metadata: dict[str, Any] = Field(
        default_factory=dict, description="whatever else is worth knowing of it: documentation, serial number, place …"
    )
    _origin: str = PrivateAttr(default="")
    _file: Path = PrivateAttr(default=Path())

    @property
    def call_limit(self) -> float | None:
        """Seconds in which a call must return; a device that is said to block may take its time unless it is given."""
        is_default = "call_timeout" not in self.model_fields_set
        return None if self.blocking and is_default else self.call_timeout

    @property
    def origin(self) -> str:
        """`file:line: `, for the text of an error."""
        return self._origin

    @property
    def file(self) -> Path:
        """The YAML file into which edits of this device go."""
        return self._file

    def placed(self, origin: str, file: Path) -> "DeviceSpec":
        """Note where it stands; gives itself."""
        self._origin = origin
        self._file = file
        return self

    @field_validator("class_")
    @classmethod
    def _names_an_object(cls, value: str) -> str:
        if not _OBJECT.fullmatch(value):
            module, _, name = value.rpartition(".")
            remedy = f"; do you mean '{module}:{name}'?" if module and ":" not in value else ""
            raise ValueError(f"must be 'package.module:Name'{remedy}")
        return value

    @field_validator("args", "kwargs")
    @classmethod
    def _directives_are_known(cls, value: Any) -> Any:
        _check_directives(value)
        return value

    @field_validator("kwargs")
    @classmethod
    def _arguments_have_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not name.isidentifier() and not name.startswith("$"):
                raise ValueError(f"{name!r} is no name of an argument")
        return value

    @field_validator("server")
    @classmethod
    def _names_a_server(cls, value: str) -> str:
        if not _SERVER.fullmatch(value):
            raise ValueError("a device server's name is made of letters, digits, '_' and '-' and begins with a letter")
        return value


def _check_directives(value: Any) -> None:
    """Raise ValueError for what looks like `$ref`, `$obj` or `$type` and is none."""
    if isinstance(value, list):
        for each in value:
            _check_directives(each)
    if not isinstance(value, dict):
        return
    words = [key for key in value if key.startswith("$")]
    for word in words:
        if word not in ("$ref", "$obj", "$args", "$type"):
            raise ValueError(f"no directive {word!r}: {choices(word, ('$ref', '$obj', '$type'))}")
    for word in ("$ref", "$type"):
        if word in words and (len(value) > 1 or not isinstance(value[word], str)):
            raise ValueError(f"{word} stands alone, with a text: {{{word}: {'samx' if word == '$ref' else 'float'}}}")
    if "$obj" in words and not (isinstance(value["$obj"], str) and _OBJECT.fullmatch(value["$obj"])):
        raise ValueError(f"$obj: {value['$obj']!r} must be 'package.module:Name'")
    if "$args" in words and not ("$obj" in words and isinstance(value["$args"], list)):
        raise ValueError("$args is a list beside an $obj: {$obj: 'pathlib:Path', $args: [/data]}")
    for each in value.values():
        _check_directives(each)


def wrong_name(name: object) -> str | None:
    """Say what is wrong with the name of a device, if it is."""
    if not isinstance(name, str) or not name.isidentifier() or not name.isascii() or name.startswith("_"):
        return "a name is made of letters, digits and '_', and begins with a letter"
    if keyword.iskeyword(name):
        return "a name is no Python keyword: choose another one"
    if name in RESERVED_NAMES:
        return f"`bl.dev.{name}` is something else already: choose another name"
    return None


def json_schema() -> dict[str, Any]:
    """Give a JSON schema of the file, for editors."""
    device = DeviceSpec.model_json_schema(by_alias=True)
    limits = device.pop("$defs")["Limits"]
    limits.pop("title", None)
    device["properties"]["limits"] = {
        "description": device["properties"]["limits"]["description"],
        "anyOf": [limits, {"type": "null"}],
        "default": None,
    }
    for each in (device, *device["properties"].values()):
        each.pop("title", None)
    overlay = device | {"required": [], "description": "defaults of the devices of this file"}
    overlay["properties"] = {key: value for key, value in device["properties"].items() if key != "class"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bec-bluesky device file",
        "type": "object",
        "required": ["version"],
        "additionalProperties": False,
        "properties": {
            "version": {"const": 1, "description": "of this format"},
            "include": {
                "type": "array",
                "items": {"type": "string"},
                "description": "more device files, relative to this one",
            },
            "sources": {
                "type": "array",
                "description": "databases that describe devices; an entry in `devices` of the same name adds to theirs",
                "items": {
                    "type": "object",
                    "required": ["happi"],
                    "additionalProperties": False,
                    "properties": {
                        "happi": {"type": "string", "description": "a happi JSON database, relative to this file"},
                        "where": {"type": "object", "description": "only items with these fields: {beamline: MFX}"},
                    },
                },
            },
            "defaults": overlay,
            "devices": {
                "type": ["object", "null"],
                "description": "devices by name",
                "propertyNames": {"pattern": "^[A-Za-z][A-Za-z0-9_]*$", "not": {"enum": sorted(RESERVED_NAMES)}},
                "additionalProperties": device | {"required": []},
            },
        },
        "if": {"not": {"required": ["sources"]}},
        "then": {"properties": {"devices": {"additionalProperties": {"required": ["class"]}}}},
    }
