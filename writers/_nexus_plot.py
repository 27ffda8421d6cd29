"""What a person plots: `/entry/data` with the run's first signal over the scan's axes, and each detector's own."""

from dataclasses import dataclass

import h5py
import numpy as np

from bec_bluesky.documents import Document
from writers._nexus_external import ExternalFiles, ExternalFrames
from writers._nexus_grid import Grid
from writers._nexus_instrument import Axes, add_link, device_keys, hinted_keys, write_elapsed
from writers._nexus_stream import StreamTable, key_attributes
from writers._nexus_text import Names, seconds, set_attributes

__all__ = ["write_plots"]


@dataclass(frozen=True)
class _Signals:
    scalars: list[str]
    """Data keys with a number for each event, those of hinted detectors first."""
    arrays: list[str]


def write_plots(
    entry: h5py.Group, start: Document, axes: Axes, stream: StreamTable | None, external: ExternalFiles
) -> dict[str, list[int]]:
    """Write `/entry/data` if there is something to plot, and `/entry/data_<detector>` for each hinted detector.

    Gives {path: shape} of the default signal and of the frames.
    """
    if stream is None:
        return {}
    plots = _Plots(entry, start, axes, stream, external)
    shapes = plots.write_default()
    plots.write_detectors()
    frames = {
        f"{stream.group.name}/{stream.names[each.key]}": list(each.shape)
        for each in plots.frames
        if each.shape is not None
    }
    return shapes | frames


class _Plots:
    """The NXdata groups of one run."""

    def __init__(
        self, entry: h5py.Group, start: Document, axes: Axes, stream: StreamTable, external: ExternalFiles
    ) -> None:
        self._entry = entry
        self._start = start
        self._axes = axes
        self._stream = stream
        self.frames = [each for each in external if each.stream == stream.name]
        """What detectors wrote into files of their own."""
        self._gridded: h5py.Group | None = None
        self._grid_axes: list[str] = []
        self._time: h5py.Dataset | None = None

    def write_default(self) -> dict[str, list[int]]:
        """Write `/entry/data`, and say what it shows."""
        signals = self._signals()
        grid = Grid.of(self._start, len(self._axes.dimensions)) if self._axes.is_grid else None
        frames = self._first_frames()
        if signals.scalars and grid is not None and self._is_along(grid):
            data = self._gridded = self._new("data")
            shape = self._write_grid(data, grid, signals.scalars)
        elif signals.scalars or signals.arrays:
            data = self._new("data")
            shape = self._write_columns(data, signals.scalars or signals.arrays[:1])
        elif frames is not None:
            data = self._new("data")
            shape = self._write_frames(data, frames)
        else:
            return {}
        set_attributes(self._entry, {"default": "data"})
        return {f"{data.name}/{data.attrs['signal']}": shape}

    def write_detectors(self) -> None:
        """Write a group for each hinted detector: its numbers together, each of its arrays and frames apart."""
        names = Names("data")
        for device, keys in device_keys(self._stream).items():
            if device in self._axes.motors or self._axes.keys.intersection(keys):
                continue
            hinted = [key for key in hinted_keys(self._stream, device) if key in keys]
            found = self._split([key for key in hinted if self._is_plotted(key)])
            frames = [each for each in self.frames if each.key in keys and each.shape and each.link]
            frames.sort(key=lambda each: each.key not in hinted)
            free = [f"data_{device}"]  # for the first; the others have the name of their key, too
            if found.scalars:
                self._write_scalars(self._new(names[free.pop()]), found.scalars)
            for key in found.arrays:
                self._write_columns(self._new(names[free.pop() if free else f"data_{device}_{key}"]), [key])
            for each in frames:
                name = names[free.pop() if free else f"data_{device}_{each.key}"]
                if name not in self._entry:  # a second file of the same detector is only listed
                    self._write_frames(self._new(name), each)

    def _new(self, name: str) -> h5py.Group:
        data = self._entry.create_group(name)
        set_attributes(data, {"NX_class": "NXdata"})
        return data

    def _signals(self) -> _Signals:
        """Find what can be plotted: of detectors in the plan's order, then of any device; hinted, else not."""
        stream, axes = self._stream, self._axes
        devices = [str(name) for name in self._start.get("detectors") or ()]
        for descriptor in stream.descriptors:
            devices += [str(name) for name in descriptor.get("object_keys") or () if name not in devices]
        hinted = [key for device in devices if device not in axes.motors for key in hinted_keys(stream, device)]
        promised = {key for device in devices for key in hinted_keys(stream, device)} - axes.keys
        frames = [key for key in hinted if key in stream.data_keys and key not in stream.columns]
        readings = [key for key in stream.columns if key not in promised and self._device_of(key) not in axes.motors]
        for keys in (hinted, [] if frames else readings, [] if frames else list(stream.columns)):
            found = [key for key in dict.fromkeys(keys) if key not in axes.keys and self._is_plotted(key)]
            if found:
                return self._split(found)
        return _Signals([], [])

    def _split(self, keys: list[str]) -> _Signals:
        scalars = [key for key in keys if self._shape(key)[1:] == ()]
        return _Signals(scalars, [key for key in keys if key not in scalars])

    def _first_frames(self) -> ExternalFrames | None:
        """Give the frames of the first detector, in the plan's order, that wrote a file which can be read."""
        detectors = self._start.get("detectors") or ()
        hinted = [key for device in detectors for key in hinted_keys(self._stream, str(device))]
        found = [each for each in self.frames if each.shape and each.link]
        found.sort(key=lambda each: hinted.index(each.key) if each.key in hinted else len(hinted))
        return found[0] if found else None

    def _device_of(self, key: str) -> str:
        return str(self._stream.data_keys.get(key, {}).get("object_name", ""))

    def _is_plotted(self, key: str) -> bool:
        column = self._stream.columns.get(key)
        return column is not None and column.is_numeric

    def _is_scalar(self, key: str) -> bool:
        return self._is_plotted(key) and len(self._shape(key)) == 1

    def _shape(self, key: str) -> tuple[int, ...]:
        dataset = self._stream.columns[key].dataset
        return () if dataset is None else dataset.shape

    def _values(self, key: str) -> np.ndarray:
        dataset = self._stream.columns[key].dataset
        assert dataset is not None
        return dataset[()]

    def _is_along(self, grid: Grid) -> bool:
        """Tell whether the events can be put on the grid: each axis was read, and each event has a place."""
        order = self._stream.seq_nums() - 1
        return (
            all(self._is_scalar(fields[0]) for fields in self._axes.dimensions)
            and len(order) > 0
            and int(order.min()) >= 0
            and int(order.max()) < grid.size
        )

    def _write_grid(self, data: h5py.Group, grid: Grid, signals: list[str]) -> list[int]:
        stream = self._stream
        order = stream.seq_nums() - 1
        names = self._grid_axes = [stream.names[fields[0]] for fields in self._axes.dimensions]
        for number, (fields, name) in enumerate(zip(self._axes.dimensions, names, strict=True)):
            positions = grid.positions(self._values(fields[0]), order, number)
            set_attributes(data.create_dataset(name, data=positions), self._attributes(fields[0]))
            set_attributes(data, {f"{name}_indices": number})
        for key in signals:
            filled = grid.fill(self._values(key), order)
            set_attributes(data.create_dataset(stream.names[key], data=filled), self._attributes(key))
        _describe(data, [stream.names[key] for key in signals], names)
        return list(grid.shape)

    def _write_scalars(self, data: h5py.Group, signals: list[str]) -> None:
        """Write a detector's numbers: from the grid if there is one, else as columns."""
        grid, axes = self._gridded, self._grid_axes
        names = [self._stream.names[key] for key in signals]
        if grid is None or not all(name in grid for name in names):
            self._write_columns(data, signals)
            return
        for name in (*axes, *names):
            data[name] = grid[name]
            grid[name].attrs.setdefault("target", f"{grid.name}/{name}")
        for number, name in enumerate(axes):
            set_attributes(data, {f"{name}_indices": number})
        _describe(data, names, axes)

    def _write_columns(self, data: h5py.Group, signals: list[str]) -> list[int]:
        stream = self._stream
        for key in signals:
            add_link(data, stream.names[key], stream, key)
        shape = self._shape(signals[0])
        first = self._write_axes(data)
        _describe(data, [stream.names[key] for key in signals], [first, *["."] * (len(shape) - 1)])
        return list(shape)

    def _write_frames(self, data: h5py.Group, frames: ExternalFrames) -> list[int]:
        name = self._stream.names[frames.key]
        data[name] = frames.link
        shape = frames.shape or (0,)
        first = self._write_axes(data) if shape[0] == self._stream.rows else "."
        _describe(data, [name], [first, *["."] * (len(shape) - 1)])
        return list(shape)

    def _write_axes(self, data: h5py.Group) -> str:
        """Write the axes of a list of points, all along the first dimension; give the first one's name.

        They are the scan's motors, else the time since the start.
        """
        keys = [key for fields in self._axes.dimensions for key in fields if self._is_scalar(key)]
        names = [self._stream.names[key] for key in dict.fromkeys(keys)]
        for key, name in zip(dict.fromkeys(keys), names, strict=True):
            add_link(data, name, self._stream, key)
        if not names:
            names = ["time"]
            if self._time is None:
                begin = seconds(self._start.get("time"))
                self._time = write_elapsed(data, "time", self._stream.moments, begin)
                set_attributes(self._time, {"long_name": "time since start (s)", "target": self._time.name})
            else:
                data["time"] = self._time
        for name in names:
            set_attributes(data, {f"{name}_indices": 0})
        return names[0]

    def _attributes(self, key: str) -> dict[str, object]:
        return key_attributes(key, self._stream.data_keys.get(key, {}))


def _describe(data: h5py.Group, signals: list[str], axes: list[str]) -> None:
    set_attributes(data, {"signal": signals[0], "axes": axes, "auxiliary_signals": signals[1:] or None})
