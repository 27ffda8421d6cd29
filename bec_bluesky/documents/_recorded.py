"""Which streams of a stored run were recorded, and which were made of its documents afterwards."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

from bec_bluesky.documents._mender import Document

__all__ = ["derived_streams", "json_seq_exporter", "recorded_documents"]


def derived_streams(metadata: Mapping[str, Any]) -> frozenset[str]:
    """Give the streams of a stored run, by its metadata, that none of its documents tells of: its points."""
    return frozenset(metadata.get("derived_streams") or ())


def recorded_documents(
    documents: Iterable[tuple[str, Document]], metadata: Mapping[str, Any]
) -> Iterator[tuple[str, Document]]:
    """Leave out documents of derived streams, which the exporter of another Tiled server makes up."""
    derived, theirs = derived_streams(metadata), set[str]()
    for name, document in documents:
        if name == "descriptor" and document["name"] in derived:
            theirs.add(document["uid"])
        elif document.get("descriptor") not in theirs:
            yield name, document


async def json_seq_exporter(
    mimetype: str, adapter: Any, metadata: Mapping[str, Any], filter_for_access: Any
) -> AsyncIterator[str]:
    """Give a run's documents to Tiled's clients, as bluesky's exporter does, without derived streams."""
    from bluesky_tiled_plugins.exporters import json_seq_exporter as export

    async def recorded(of: Any) -> Any:
        return _Recorded(await filter_for_access(of), derived_streams(metadata))

    async for text in export(mimetype, adapter, metadata, recorded):
        yield text


class _Recorded:
    """A run's node as Tiled's server sees it, without some of its streams."""

    def __init__(self, adapter: Any, hidden: frozenset[str]) -> None:
        self._adapter, self._hidden = adapter, hidden

    async def keys_range(self, offset: int = 0, limit: int | None = None) -> list[str]:
        keys = await self._adapter.keys_range(offset=offset, limit=limit)
        return [key for key in keys if key not in self._hidden]

    async def lookup_adapter(self, segments: list[str]) -> Any:
        return await self._adapter.lookup_adapter(segments)
