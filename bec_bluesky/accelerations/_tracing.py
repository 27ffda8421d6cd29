"""No OpenTelemetry attributes for spans that nobody records."""

from typing import Any

from bluesky import run_engine
from opentelemetry import trace

from bec_bluesky.accelerations._acceleration import Acceleration, Replacement

__all__ = ["TRACING", "is_traced"]

_stock = run_engine._set_span_msg_attributes
_COMMANDS = ("set", "complete", "collect")
"""Those whose method is in a span of its own (`wait` too: `_waiting.py`)."""


def is_traced() -> bool:
    """Whether somebody set up a tracer."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _set_attributes(span: Any, msg: Any) -> None:
    if span.is_recording():
        _stock(span, msg)


def _without_spans(RE: Any) -> None:
    for command in _COMMANDS:
        stock = RE._command_registry[command]
        if getattr(stock, "__self__", None) is RE and hasattr(stock, "__wrapped__"):
            RE.register_command(command, _untraced(RE, stock))


def _untraced(RE: Any, stock: Any) -> Any:
    bare = stock.__wrapped__

    async def command(msg: Any) -> Any:
        return await (stock(msg) if is_traced() else bare(RE, msg))

    command.__doc__ = stock.__doc__
    return command


TRACING = Acceleration(
    name="tracing",
    stock={
        "bluesky.run_engine:_set_span_msg_attributes": "2419ba50b72b",
        "bluesky.run_engine:RunEngine._set": "f532073ee515",
        "bluesky.run_engine:RunEngine._complete": "fe536094686b",
        "bluesky.run_engine:RunEngine._collect": "cd383e1d4b61",
    },
    in_process=lambda: [Replacement(run_engine, "_set_span_msg_attributes", _set_attributes)],
    in_engine=_without_spans,
)
"""For each `set` and `wait` bluesky writes the message's arguments as JSON and the device's `repr` into a span, and
without a tracer throws it away; the span itself costs as much again. Asked at each message: a tracer set up later is
served."""
