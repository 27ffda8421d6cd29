"""An example of a layout by code: name `writers.example_layout:count_rate` in the writer's `layouts`."""

import h5py

from writers._nexus_text import set_attributes, write_value
from writers.nexus import LayoutRun

__all__ = ["count_rate"]


def count_rate(run: LayoutRun) -> list[str] | None:
    """Add how many events a second each stream had, as `/entry/rates`; tell the run that had none."""
    rates = run.entry.create_group("rates")
    set_attributes(rates, {"NX_class": "NXcollection"})
    for name, stream in run.streams.items():
        times = stream.times()
        if len(times) > 1 and times[-1] > times[0]:
            write_value(rates, name, (len(times) - 1) / (times[-1] - times[0]), {"units": "Hz"})
    if not any(isinstance(member, h5py.Dataset) for member in rates.values()):
        return ["no stream has two events, so that there are no rates"]
    return None
