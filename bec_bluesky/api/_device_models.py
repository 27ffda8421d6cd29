"""What the HTTP API says of devices, and what it takes."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Device", "DeviceDetails", "Done", "Move", "Reading", "Set", "Stopped", "Trigger", "Value"]

Timeout = Annotated[float, Field(gt=0, le=3600, description="Seconds to wait; what takes longer goes on")]


class Device(BaseModel):
    """A device, or a part of one."""

    path: str = Field(description="How it is addressed: `samx`, `samx.velocity`")
    name: str = Field(description="Its name in documents")
    server: str
    state: str = Field(description="connected, failed, disconnected, disabled, or `no server`")
    reason: str = Field(description="Why it is not connected; empty if it is")
    device_class: str
    layer: str = Field(description="ophyd, ophyd-async or other")
    labels: list[str]
    readout: str = Field(description="monitored, baseline, async, on_request or continuous")
    limits: tuple[float, float] | None = Field(description="(low, high) in its units")
    read_only: bool
    holder: str | None = Field(description="Who holds it, so that nobody else can move it")
    value: Any = Field(description="What it read last, as it was published; null if nothing was")
    units: str


class DeviceDetails(Device):
    """A device with its parts, its methods and its last published reading."""

    parent: str | None
    parts: list[str] = Field(description="Paths of its parts")
    methods: list[str]
    protocols: list[str]
    hints: dict[str, Any] | None
    reading: dict[str, Any] = Field(description="{key: {value, timestamp}} as published last; empty for parts")
    connected: bool = Field(description="Whether that reading is of now")


class Reading(BaseModel):
    """What a device reads now."""

    path: str
    reading: dict[str, dict[str, Any]] = Field(description="{key: {value, timestamp, …}}")


class Value(BaseModel):
    """The value of a signal, or where a motor is."""

    path: str
    value: Any


class _Asked(BaseModel):
    """What is sent here: a key that nobody knows (`timeot`) is refused."""

    model_config = ConfigDict(extra="forbid")


class Move(_Asked):
    """Where to move."""

    value: Any
    relative: bool = Field(default=False, description="Whether `value` is added to the setpoint")
    timeout: Timeout = 60.0


class Set(_Asked):
    """What to set."""

    value: Any
    wait: bool = Field(default=False, description="Whether to answer only when it is done")
    timeout: Timeout = 60.0


class Trigger(_Asked):
    """How to trigger."""

    wait: bool = True
    timeout: Timeout = 60.0


class Done(BaseModel):
    """How far it is."""

    path: str
    done: bool = Field(description="False: it was taken and is under way")


class Stopped(BaseModel):
    """What a stop of everything reached."""

    complete: bool
    servers: list[str] = Field(description="Device servers that stopped what they have")
    not_stopped: dict[str, str] = Field(description="{device: why it could not be stopped}")
    silent: dict[str, str] = Field(description="{device server: why it is not known to have stopped anything}")
    duration: float = Field(description="Seconds until the last answer")
