"""What analyses found in a run, as `/entry/results`."""

import h5py

from bec_bluesky.documents import AnalysisResult
from writers._nexus_head import collection
from writers._nexus_stream import StreamTable
from writers._nexus_text import Names, iso_time, set_attributes, write_value

__all__ = ["Results"]

_ALONG_X = ("center", "center_of_mass", "fwhm", "x_of_max", "x_of_min", "sigma", "width", "com", "position")
"""Beginnings of the names of values that have the unit of x; others have none here."""


class Results:
    """The latest result of each analysis for each pair of axis and signal."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str, str], AnalysisResult] = {}

    def __bool__(self) -> bool:
        return bool(self._latest)

    @property
    def are_final(self) -> bool:
        """Whether there are some, and each is the last word of its analysis."""
        return bool(self._latest) and all(result.final for result in self._latest.values())

    def take(self, result: AnalysisResult) -> None:
        """Keep a result; a final one is not replaced by an earlier one."""
        key = (result.analysis, result.x, result.y)
        before = self._latest.get(key)
        if before is None or result.final or not before.final:
            self._latest[key] = result

    def write(self, entry: h5py.Group, main: StreamTable | None, moment: float) -> None:
        """Write an NXprocess for each; `moment` is when, seconds since 1970."""
        parent, names = collection(entry, "results"), Names()
        for (analysis, x, y), result in sorted(self._latest.items()):
            group = parent.create_group(names[f"{analysis}_{y}_{x}" if x else f"{analysis}_{y}"])
            set_attributes(group, {"NX_class": "NXprocess", "x": x, "y": y, "is_final": result.final})
            write_value(group, "program", analysis)
            write_value(group, "date", iso_time(moment))
            write_value(group, "points", result.points)
            if result.note:
                write_value(group, "note", result.note)
            units = {} if main is None else main.data_keys.get(x, {})
            for kind, values in (("values", result.values), ("fit", result.fit)):
                if values:
                    members, target = Names(), collection(group, kind)
                    for name, value in values.items():
                        unit = units.get("units") if name.startswith(_ALONG_X) else None
                        write_value(target, members[name], value, {"units": unit})
