"""What guards runs and queues, as `profile.toml` says it: suspenders and interlocks."""

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bec_bluesky.errors import SettingsError, choices

__all__ = ["Condition", "Interlock", "PlanCall", "Suspender", "read_interlocks", "read_suspenders"]

_SUSPENDER_KEYS = {
    "below": ("limit", "resume_at"),
    "above": ("limit", "resume_at"),
    "high": (),
    "low": (),
    "outside": ("lowest", "highest"),
    "changed": ("expected",),
}
"""What each kind has of its own; `resume_at` may be left out."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PlanCall(_Entry):
    """A plan by its name, with arguments as an item of the queue has them."""

    plan: str
    args: list[Any] = Field(default_factory=list)
    kwargs: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"plan": value} if isinstance(value, str) else value


class Suspender(_Entry):
    """An entry `[[suspenders]]`: while its signal is bad no plan goes on, and the spoiled point is taken again."""

    signal: str
    """Path of a device, or of a part of one."""
    kind: Literal["below", "above", "high", "low", "outside", "changed"]
    """When the signal is bad."""
    name: str = ""
    limit: float | None = None
    resume_at: float | None = None
    """It is good again from here on; none: from `limit` on."""
    lowest: float | None = None
    highest: float | None = None
    expected: str | int | float | bool | None = None
    sleep: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Seconds that it must have been good before the plan goes on."""
    before: PlanCall | None = None
    """Runs when it becomes bad."""
    after: PlanCall | None = None
    """Runs when it is good again, before the plan goes on."""
    message: str = ""
    not_for: list[str] = Field(default_factory=list[str])
    """Plans that run all the same."""
    enabled: bool = True

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        own = _SUSPENDER_KEYS[self.kind]
        for key in ("limit", "resume_at", "lowest", "highest", "expected"):
            is_given = getattr(self, key) is not None
            if is_given and key not in own:
                raise ValueError(f"{key} means nothing to kind = {self.kind!r}")
            if not is_given and key in own and key != "resume_at":
                raise ValueError(f"kind = {self.kind!r} needs {key}")
        if self.lowest is not None and self.highest is not None and not self.lowest < self.highest:
            raise ValueError(f"lowest ({self.lowest:g}) must be less than highest ({self.highest:g})")
        if self.limit is not None and self.resume_at is not None:
            is_beyond = self.resume_at >= self.limit if self.kind == "below" else self.resume_at <= self.limit
            if not is_beyond:
                side = "at or above" if self.kind == "below" else "at or below"
                raise ValueError(f"resume_at ({self.resume_at:g}) must be {side} limit ({self.limit:g})")
        return self

    @property
    def label(self) -> str:
        """What it is called in texts for people."""
        return self.name or self.signal


def read_suspenders(where: str, entries: Any) -> tuple[Suspender, ...]:
    """Check `[[suspenders]]`; raises SettingsError that names the entry, what is wrong with it, and what may be."""
    return _read(where, "suspenders", entries, Suspender)


class Condition(_Entry):
    """What makes an interlock trip: one comparison of what a device reads."""

    device: str
    """Path of a device, or of a part of one."""
    above: float | None = None
    below: float | None = None
    equals: str | float | bool | None = None
    differs: str | float | bool | None = None

    @model_validator(mode="after")
    def _compares_once(self) -> Self:
        if len(self._given) != 1:
            raise ValueError("needs one of above, below, equals, differs")
        return self

    @property
    def _given(self) -> list[tuple[str, Any]]:
        values = [(each, getattr(self, each)) for each in ("above", "below", "equals", "differs")]
        return [(name, value) for name, value in values if value is not None]

    def holds(self, value: Any) -> bool:
        """Tell whether a value is a bad one; raises TypeError if it cannot be compared."""
        ((name, other),) = self._given
        match name:
            case "above":
                return not value <= other  # also what is no number (nan)
            case "below":
                return not value >= other
            case "equals":
                return bool(value == other)
            case _:
                return bool(value != other)

    @property
    def text(self) -> str:
        """The comparison in words: `above 3`."""
        ((name, other),) = self._given
        words = {"equals": "equal to", "differs": "other than"}
        return f"{words.get(name, name)} {other:g}" if isinstance(other, float) else f"{words[name]} {other!r}"


class Interlock(_Entry):
    """An entry `[[interlocks]]`: what is done when devices read what they must not, whatever runs."""

    name: str
    when: Annotated[list[Condition], Field(min_length=1)]
    match: Literal["any", "all"] = "any"
    """How many of the conditions make it trip."""
    grace: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Seconds for which they must hold."""
    action: Literal["pause", "pause_now", "stop_queue", "abort", "alarm"]
    when_clear: Literal["resume", "start_queue", "none"] = "none"
    clear_for: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Seconds for which it must be good again before it counts as clear."""
    when_lost: Literal["trip", "ignore"] = "trip"
    """What a device counts as that cannot be read."""
    message: str = ""
    enabled: bool = True

    @model_validator(mode="after")
    def _takes_back_what_it_did(self) -> Self:
        possible = {"resume": ("pause", "pause_now"), "start_queue": ("stop_queue", "abort")}
        if self.when_clear in possible and self.action not in possible[self.when_clear]:
            wanted = " or ".join(possible[self.when_clear])
            raise ValueError(f"when_clear = {self.when_clear!r} goes with action = {wanted}, not {self.action}")
        return self

    @property
    def label(self) -> str:
        """What it is called in texts for people."""
        return self.name


_Guard = TypeVar("_Guard", Suspender, Interlock)


def read_interlocks(where: str, entries: Any) -> tuple[Interlock, ...]:
    """Check `[[interlocks]]`; raises SettingsError that names the entry, what is wrong with it, and what may be."""
    return _read(where, "interlocks", entries, Interlock)


def _read(where: str, key: str, entries: Any, model: type[_Guard]) -> tuple[_Guard, ...]:
    if not isinstance(entries, list):
        raise SettingsError(f"{where}: {key} must be a list of tables: [[{key}]]")
    found: dict[str, _Guard] = {}
    for number, entry in enumerate(entries, 1):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # TOML's
        name = entry.get("name") or entry.get("signal") if isinstance(entry, dict) else ""  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # TOML's
        place = f"{where}: [[{key}]] number {number}" + (f" ({name})" if name else "")
        try:
            one = model.model_validate(entry)
        except ValidationError as error:
            raise SettingsError(f"{place}: {_first_mistake(error, model)}") from None
        if one.label in found:
            raise SettingsError(f"{place}: there is one called {one.label!r} already: give each a name of its own")
        found[one.label] = one
    return tuple(found.values())


def _first_mistake(error: ValidationError, model: type[_Entry]) -> str:
    mistake = error.errors()[0]
    at = ".".join(map(str, mistake["loc"]))
    if mistake["type"] == "extra_forbidden":
        inner = {"when": Condition, "before": PlanCall, "after": PlanCall}
        known = model if len(mistake["loc"]) == 1 else inner[str(mistake["loc"][0])]
        return f"no setting {at!r}: {choices(str(mistake['loc'][-1]), known.model_fields)}"
    if mistake["type"] == "missing":
        return f"{at} is missing"
    text = mistake["msg"].removeprefix("Value error, ")
    return f"{at} = {mistake['input']!r}: {text}" if at else text
