"""`python -m tests.writers.readings DIRECTORY URI UID ... < key`: all numbers of runs, by each way of reading them.

A process of its own, since databroker changes what every client of the process gives. Writes JSON to the
standard output: {uid: {way: {stream: {data key: values}}}}.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from databroker.v1 import Broker
from tiled.client import from_uri

from bec_bluesky.documents import Run
from bec_bluesky.settings import Settings

Readings = dict[str, dict[str, Any]]


def of_documents(documents: Iterator[tuple[str, Any]]) -> Readings:
    """Give what the events hold."""
    streams: dict[str, str] = {}
    found: Readings = {}
    for name, doc in documents:
        if name == "descriptor":
            streams[doc["uid"]] = doc["name"]
            found.setdefault(doc["name"], {})
        elif name == "event":
            columns = found[streams[doc["descriptor"]]]
            for key, value in doc["data"].items():
                columns.setdefault(key, []).append(value)
    return found


def of_table(table: Any) -> dict[str, Any]:
    """Give the columns of a pandas table."""
    return {
        str(name): [np.asarray(value).tolist() for value in table[name]] for name in table.columns if name != "time"
    }


def of_dataset(dataset: Any) -> dict[str, Any]:
    """Give the variables of an xarray dataset."""
    return {str(name): dataset[name].values.tolist() for name in dataset.variables if name not in ("time", "seq_num")}


def read(run: Any, settings: Settings) -> dict[str, Readings]:
    """Give what Tiled's client and ours give."""
    ours = Run(run, settings)
    ways: dict[str, Readings] = defaultdict(dict)
    for stream in ours.streams:
        keys = list(run[stream].metadata["data_keys"])
        ways["Tiled client, a column"][stream] = {key: np.asarray(run[stream][key].read()).tolist() for key in keys}
        ways["Tiled client, all"][stream] = of_dataset(run[stream].read())
        ways["bl.data, table"][stream] = of_table(ours.table(stream))
        ways["bl.data, xarray"][stream] = of_dataset(ours.xarray(stream, frames=True))
    ways["bl.data, documents"] = of_documents(ours.documents())
    return ways


def read_by_databroker(header: Any, run: Any) -> dict[str, Readings]:
    """Give what its interfaces v1 and v2 give."""
    return {
        "v1, table": {stream: of_table(header.table(stream)) for stream in header.stream_names},
        "v1, documents": of_documents(header.documents()),
        "v2": {stream: of_dataset(run[stream]["data"].read()) for stream in list(run)},
    }


def main(directory: str, uri: str, *uids: str) -> None:
    key = sys.stdin.readline().strip()
    catalog = from_uri(uri, api_key=key)
    settings = Settings(data_dir=Path(directory))
    found = {uid: read(catalog[uid], settings) for uid in uids}
    broker, second = Broker(catalog), catalog.v2
    for uid, ways in found.items():
        ways |= read_by_databroker(broker[uid], second[uid])
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
