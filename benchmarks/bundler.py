"""How long the bundler takes to make a point of its documents, and how many updates of monitors it takes.

    python benchmarks/bundler.py [--points 20000] [--updates 100000] [--repeats 3]

Compared in one run with event_model's own way to look at every event: a RunRouter whose factory unpacks pages. Both get
the same documents: a scan of ten detectors with frames, and a monitor of ten signals. The best of the repeats is shown,
which alternate. Nothing is published: this is the bundler's own share of the way from a document to a point on Redis.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from event_model import DocumentRouter, RunRouter, compose_run, compose_stream_resource  # noqa: E402

from callbacks.bundler import ScanBundler  # noqa: E402

Documents = list[tuple[str, dict[str, Any]]]
Take = Callable[[str, dict[str, Any]], Any]
_NUMBER = {"dtype": "number", "shape": [], "source": "benchmark"}
_FRAME = {"dtype": "array", "shape": [1, 8, 8], "source": "benchmark", "external": "STREAM:"}
_KEYS = [f"k{number}" for number in range(10)]


class _Rows(DocumentRouter):
    """What a naive callback does: keep the newest row, count the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0
        self.newest: dict[str, Any] = {}

    def event_page(self, doc: Any) -> None:
        for row in range(len(doc["seq_num"])):
            self.newest = {key: column[row] for key, column in doc["data"].items()}
            self.rows += 1


def router() -> Take:
    return RunRouter([lambda _name, _doc: ([_Rows()], [])])


def bundler() -> Take:
    return ScanBundler(emit=lambda _: None)


class BenchmarkRun:
    """Composes one run's documents by hand: event_model's compose functions would take longer than what is measured."""

    def __init__(self) -> None:
        run = compose_run(metadata={"scan_id": 1, "hints": {"dimensions": [[["k0"], "primary"]]}}, time=1_000.0)
        describe = run.compose_descriptor
        keys = dict.fromkeys(_KEYS, _NUMBER)
        primary = describe(name="primary", data_keys={**keys, "cam": _FRAME}, hints={}, validate=False)
        monitor = describe(
            name="ring_monitor", data_keys={f"m_{key}": _NUMBER for key in _KEYS}, hints={}, validate=False
        )
        resource = compose_stream_resource(
            data_key="cam",
            mimetype="application/x-hdf5",
            uri="file://localhost/frames.h5",
            parameters={"chunk_shape": (1, 8, 8)},
            start=run.start_doc,
        )
        self.head: Documents = [
            ("start", dict(run.start_doc)),
            *(("descriptor", {**each.descriptor_doc, "time": 1_000.0}) for each in (primary, monitor)),
            ("stream_resource", dict(resource.stream_resource_doc)),
        ]
        self._uids = primary.descriptor_doc["uid"], monitor.descriptor_doc["uid"], resource.stream_resource_doc["uid"]

    def point(self, number: int) -> Documents:
        """Give the event of a point, and what completes it: the announcement of its frame."""
        primary, _, resource = self._uids
        datum: dict[str, Any] = {
            "uid": f"{resource}/{number}",
            "stream_resource": resource,
            "descriptor": primary,
            "indices": {"start": number - 1, "stop": number},
            "seq_nums": {"start": number, "stop": number + 1},
        }
        return [("event", self._event(primary, number, _KEYS)), ("stream_datum", datum)]

    def update(self, number: int) -> tuple[str, dict[str, Any]]:
        """Give an event of the monitor."""
        return "event", self._event(self._uids[1], number, [f"m_{key}" for key in _KEYS])

    @staticmethod
    def _event(descriptor: str, number: int, keys: list[str]) -> dict[str, Any]:
        moment = 1_000.0 + number * 1e-3
        return {
            "descriptor": descriptor,
            "uid": f"{descriptor}/{number}",
            "seq_num": number,
            "time": moment,
            "data": dict.fromkeys(keys, float(number)),
            "timestamps": dict.fromkeys(keys, moment),
            "filled": {},
        }


def begun(make: Callable[[], Take]) -> tuple[BenchmarkRun, Take]:
    run, take = BenchmarkRun(), make()
    for name, doc in run.head:
        take(name, doc)
    return run, take


def points(make: Callable[[], Take], count: int) -> Iterator[float]:
    """Give for each point the seconds that its event and its completing document took."""
    run, take = begun(make)
    for number in range(1, count + 1):
        event, completing = run.point(number)
        began = time.perf_counter()
        take(*event)
        take(*completing)
        yield time.perf_counter() - began


def updates(make: Callable[[], Take], count: int) -> float:
    """Give the seconds that each of so many updates of a monitor took, a point every hundred."""
    run, take = begun(make)
    documents: Documents = []
    for number in range(1, count + 1):
        documents.append(run.update(number))
        if number % 100 == 0:
            documents += run.point(number // 100)
    began = time.perf_counter()
    for name, doc in documents:
        take(name, doc)
    return (time.perf_counter() - began) / len(documents)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--updates", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    ways: dict[str, Callable[[], Take]] = {"bundler": bundler, "RunRouter": router}
    best: dict[str, list[float]] = {way: [1e9, 1e9, 1e9] for way in ways}
    for _ in range(options.repeats):
        for way, make in ways.items():
            took = sorted(points(make, options.points))
            found = [took[len(took) // 2], took[len(took) * 95 // 100], updates(make, options.updates)]
            best[way] = [min(pair) for pair in zip(best[way], found, strict=True)]
    print(f"{'µs':40} {'bundler':>10} {'RunRouter':>10} {'ratio':>6}")
    for row, text in enumerate(
        ("a point's two documents, median", "a point's two documents, p95", "a document among monitors")
    ):
        ours, theirs = best["bundler"][row] * 1e6, best["RunRouter"][row] * 1e6
        print(f"{text:40} {ours:10.1f} {theirs:10.1f} {ours / theirs:6.2f}")
    print(f"monitor updates absorbed a second: {1 / best['bundler'][2]:.0f}")


if __name__ == "__main__":
    main()
