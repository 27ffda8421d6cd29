"""A process that writes a long run, and says what memory it had: `python long_run.py DIRECTORY EVENTS`.

A scan of ten readings and a monitor, an update with each event. It prints, as JSON, its memory after a tenth of the
events, after all, and its peak with what follows the stop document, in MB; and where the file is.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from bec_bluesky.documents import FileReady
from writers.nexus import NexusWriter

_KEYS = {"primary": [f"k{number}" for number in range(10)], "ring_monitor": ["ring"]}


def memory(field: str) -> float:
    """Give what the process has in memory now (VmRSS), or had at most (VmHWM), in MB."""
    found = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(found[field].split()[0]) / 1024


def main(directory: str, events: int) -> None:
    products: list[Any] = []
    writer = NexusWriter(directory=directory, emit=products.append)
    writer("start", {"uid": "run", "time": time.time(), "scan_id": 1, "plan_name": "long"})
    for stream, keys in _KEYS.items():
        data_keys = {key: {"dtype": "number", "shape": [], "source": "here"} for key in keys}
        descriptor = {"uid": stream, "run_start": "run", "name": stream, "time": 1.0, "data_keys": data_keys}
        writer("descriptor", descriptor | {"object_keys": {}, "configuration": {}, "hints": {}})
    early = 0.0
    for number in range(1, events + 1):
        for stream, keys in _KEYS.items():
            event: dict[str, Any] = {"uid": f"{stream}/{number}", "descriptor": stream, "seq_num": number}
            event |= {"time": 1000.0 + number, "filled": {}, "data": dict.fromkeys(keys, number + 0.5)}
            writer("event", event | {"timestamps": dict.fromkeys(keys, 1000.0 + number)})
        if number == events // 10:
            early = memory("VmRSS")
    late = memory("VmRSS")
    counts = dict.fromkeys(_KEYS, events)
    stop = {"uid": "stop", "run_start": "run", "time": time.time(), "exit_status": "success", "num_events": counts}
    writer("stop", stop)
    (path,) = (product.path for product in products if isinstance(product, FileReady))
    sys.stdout.write(json.dumps({"early": early, "late": late, "peak": memory("VmHWM"), "path": path}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
