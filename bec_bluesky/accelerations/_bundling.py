"""Events put together with as many checks as ever, but cheaper ones."""

from typing import Any

from bluesky.bundlers import RunBundler
from bluesky.utils import maybe_collect_asset_docs
from event_model import ComposeDescriptorBundle, ComposeEvent

from bec_bluesky.accelerations._acceleration import Acceleration, extend

__all__ = ["COLLISIONS", "VALIDATION"]


class _ComposeEvent(ComposeEvent):
    """Validates by jsonschema only what may be wrong."""

    _keys: set[str] | None = None
    """Keys that must be in every event."""

    def __call__(self, data: Any, timestamps: Any, *args: Any, validate: bool = True, **kwargs: Any) -> Any:
        """Compose an Event; raises as the stock one does."""
        if self._keys is None:
            keys = self.descriptor["data_keys"]
            self._keys = {key for key, entry in keys.items() if entry.get("external") != "STREAM:"}
        is_right = (
            type(data) is dict
            and type(timestamps) is dict
            and data.keys() == self._keys == timestamps.keys()
            and not args
            and kwargs.keys() <= {"filled"}
            and _is_filled_rightly(kwargs.get("filled"), data)
        )
        return super().__call__(data, timestamps, *args, validate=validate and not is_right, **kwargs)


def _is_filled_rightly(filled: Any, data: dict[str, Any]) -> bool:
    if not filled:
        return filled is None or type(filled) is dict
    return (
        type(filled) is dict
        and filled.keys() <= data.keys()
        and all(type(value) in (bool, str) for value in filled.values())
    )


class _QuickValidation(RunBundler):
    """Composes events by `_ComposeEvent`."""

    async def open_run(self, msg: Any) -> Any:
        uid = await super().open_run(msg)
        stock = self._compose_descriptor

        def compose_descriptor(*args: Any, **kwargs: Any) -> ComposeDescriptorBundle:
            bundle = stock(*args, **kwargs)
            event = bundle.compose_event
            bundle.compose_event = _ComposeEvent(event.descriptor, event.event_counters)
            return bundle

        self._compose_descriptor = compose_descriptor
        return uid


class _QuickCollisions(RunBundler):
    """Remembers the keys read in this event, instead of comparing each device with each other one."""

    _keys_read: frozenset[str] | set[str] = frozenset()

    async def create(self, msg: Any) -> Any:
        await super().create(msg)
        self._keys_read = set()

    async def read(self, msg: Any, reading: Any) -> Any:
        obj, cache = msg.obj, self._current_stream_cache
        keys = cache.describe_cache.get(obj) if self.bundling and obj in cache.config_desc_cache else None
        if keys is None or not self._keys_read.isdisjoint(keys):
            result = await super().read(msg, reading)
            if self.bundling:
                self._keys_read |= cache.describe_cache[obj].keys()
            return result
        self._keys_read |= keys.keys()
        self._objs_read.append(obj)
        cache.read_cache.append(reading)
        if hasattr(obj, "collect_asset_docs"):
            self._asset_docs_cache.extend(
                [each async for each in maybe_collect_asset_docs(msg, obj, *msg.args, **msg.kwargs)]
            )
        return reading


def _with(mixin: type[RunBundler]) -> Any:
    def in_engine(RE: Any) -> None:
        stock = type(RE).RunBundler
        bundler = mixin if stock is RunBundler else type("RunBundler", (mixin, stock), {"__module__": __name__})
        extend(RE, RunBundler=bundler)

    return in_engine


VALIDATION = Acceleration(
    name="validation",
    stock={
        "event_model:ComposeEvent": "acd670298f3e",
        "event_model:ComposeDescriptorBundle": "2d77fb690718",
        "bluesky.bundlers:RunBundler.open_run": "f78a1b9f79a6",
        "bluesky.bundlers:RunBundler.save": "1373802c21d5",
    },
    in_engine=_with(_QuickValidation),
)
"""Every Event is checked by jsonschema, whose schema says no more of an Event made by `ComposeEvent` than types that
can be seen at a glance. An event with exactly the descriptor's keys is right; any other goes the stock way, and is
refused there with the stock error."""

COLLISIONS = Acceleration(
    name="collisions",
    stock={
        "bluesky.bundlers:RunBundler.create": "1b50246007ed",
        "bluesky.bundlers:RunBundler.read": "5323c5d471af",
        "bluesky.bundlers:_StreamCache": "b7aac3082aad",
        "bluesky.utils:maybe_collect_asset_docs": "96d0101af2eb",
    },
    in_engine=_with(_QuickCollisions),
)
"""Whether two devices have a key in common is asked of each pair in each event (190 pairs for 20 devices). One set of
the keys read so far tells it as well; where it tells that two collide, the stock code says which. What was described
is not asked for again (an `asyncio.gather` of nothing), and a device without `collect_asset_docs` has no documents."""
