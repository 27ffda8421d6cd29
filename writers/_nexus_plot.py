"""What a person plots: `/entry/data` with the run's first signal over the scan's axes."""

from dataclasses import dataclass

import h5py
import numpy as np

from bec_bluesky.documents import Document
from writers._nexus_external import ExternalFiles
from writers._nexus_grid import Grid
from writers._nexus_instrument import Axes, add_link, hinted_keys
from writers._nexus_stream import StreamTable, key_attributes
from writers._nexus_text import iso_time, seconds, set_attributes

__all__ = ["write_plot"]


@dataclass(frozen=True)
class _Signals:
    scalars: list[str]
    """Data keys with a number for each event, those of hinted detectors first."""
    arrays: list[str]


def write_plot(
    entry: h5py.Group, start: Document, axes: Axes, stream: StreamTable | None, external: ExternalFiles
) -> dict[str, list[int]]:
    """Write `/entry/data` if there is something to plot; give {path: shape} of its signal and of the frames."""
    shapes = {
        f"{entry.name}/streams/{frames.stream}/{stream.names[frames.key]}": list(frames.shape)
        for frames in external
        if frames.shape is not None and stream is not None and frames.stream == stream.name
    }
    if stream is None:
        return shapes
    signals = _signals(stream, start, axes)
    data = entry.create_group("data")
    set_attributes(data, {"NX_class": "NXdata"})
    grid = Grid.of(start, len(axes.dimensions)) if axes.is_grid else None
    shape: list[int] | None = None
    if signals.scalars and grid is not None and _is_along(stream, axes, grid):
        shape = _write_grid(data, stream, axes, grid, signals.scalars)
    elif signals.scalars or signals.arrays:
        names = signals.scalars or signals.arrays[:1]
        shape = _write_columns(data, stream, axes, names, start)
    else:
        shape = _write_frames(data, stream, axes, external, start)
    if shape is None:
        del entry["data"]
        return shapes
    set_attributes(entry, {"default": "data"})
    return {f"{data.name}/{data.attrs['signal']}": shape} | shapes


def _signals(stream: StreamTable, start: Document, axes: Axes) -> _Signals:
    """Find what can be plotted: of detectors in the plan's order, then of any device; hinted, else not."""
    devices = [str(name) for name in start.get("detectors") or ()]
    for descriptor in stream.descriptors:
        devices += [str(name) for name in descriptor.get("object_keys") or () if name not in devices]
    hinted = [key for device in devices if device not in axes.motors for key in hinted_keys(stream, device)]
    promised = {key for device in devices for key in hinted_keys(stream, device)} - axes.keys
    frames = [key for key in hinted if key in stream.data_keys and key not in stream.columns]
    readings = [key for key in stream.columns if key not in promised and _device_of(stream, key) not in axes.motors]
    for keys in (hinted, [] if frames else readings, [] if frames else list(stream.columns)):
        found = [key for key in dict.fromkeys(keys) if key not in axes.keys and _is_plotted(stream, key)]
        scalars = [key for key in found if _shape(stream, key)[1:] == ()]
        arrays = [key for key in found if key not in scalars]
        if found:
            return _Signals(scalars, arrays)
    return _Signals([], [])


def _device_of(stream: StreamTable, key: str) -> str:
    return str(stream.data_keys.get(key, {}).get("object_name", ""))


def _is_plotted(stream: StreamTable, key: str) -> bool:
    column = stream.columns.get(key)
    return column is not None and column.is_numeric


def _shape(stream: StreamTable, key: str) -> tuple[int, ...]:
    dataset = stream.columns[key].dataset
    return () if dataset is None else dataset.shape


def _values(stream: StreamTable, key: str) -> np.ndarray:
    dataset = stream.columns[key].dataset
    assert dataset is not None
    return dataset[()]


def _is_scalar(stream: StreamTable, key: str) -> bool:
    return _is_plotted(stream, key) and len(_shape(stream, key)) == 1


def _is_along(stream: StreamTable, axes: Axes, grid: Grid) -> bool:
    """Tell whether the events can be put on the grid: each axis was read, and each event has a place."""
    order = stream.seq_nums() - 1
    return (
        all(_is_scalar(stream, fields[0]) for fields in axes.dimensions)
        and len(order) > 0
        and int(order.min()) >= 0
        and int(order.max()) < grid.size
    )


def _write_grid(data: h5py.Group, stream: StreamTable, axes: Axes, grid: Grid, signals: list[str]) -> list[int]:
    order = stream.seq_nums() - 1
    names = []
    for number, fields in enumerate(axes.dimensions):
        name = stream.names[fields[0]]
        positions = grid.positions(_values(stream, fields[0]), order, number)
        set_attributes(data.create_dataset(name, data=positions), _attributes(stream, fields[0]))
        set_attributes(data, {f"{name}_indices": number})
        names.append(name)
    for key in signals:
        filled = grid.fill(_values(stream, key), order)
        set_attributes(data.create_dataset(stream.names[key], data=filled), _attributes(stream, key))
    _describe(data, [stream.names[key] for key in signals], names)
    return list(grid.shape)


def _write_columns(
    data: h5py.Group, stream: StreamTable, axes: Axes, signals: list[str], start: Document
) -> list[int] | None:
    for key in signals:
        add_link(data, stream.names[key], stream, key)
    shape = _shape(stream, signals[0])
    names = _write_axes(data, stream, axes, start)
    _describe(data, [stream.names[key] for key in signals], [names[0], *["."] * (len(shape) - 1)])
    return list(shape)


def _write_axes(data: h5py.Group, stream: StreamTable, axes: Axes, start: Document) -> list[str]:
    """Write the axes of a list of points, all along the first dimension: the scan's motors, else the time."""
    keys = [key for fields in axes.dimensions for key in fields if _is_scalar(stream, key)]
    names = [stream.names[key] for key in dict.fromkeys(keys)]
    for key, name in zip(dict.fromkeys(keys), names, strict=True):
        add_link(data, name, stream, key)
    if not names:
        begin = seconds(start.get("time"))
        name = "time"
        dataset = data.create_dataset(name, data=stream.times() - begin)
        set_attributes(dataset, {"units": "s", "start": iso_time(begin), "long_name": "time since start (s)"})
        names = [name]
    for name in names:
        set_attributes(data, {f"{name}_indices": 0})
    return names


def _write_frames(
    data: h5py.Group, stream: StreamTable, axes: Axes, external: ExternalFiles, start: Document
) -> list[int] | None:
    """Plot the frames of the first detector that wrote a file; nothing if it cannot be read."""
    hinted = [key for device in start.get("detectors") or () for key in hinted_keys(stream, str(device))]
    found = [frames for frames in external if frames.shape and frames.link and frames.stream == stream.name]
    found.sort(key=lambda frames: hinted.index(frames.key) if frames.key in hinted else len(hinted))
    if not found:
        return None
    frames = found[0]
    name = stream.names[frames.key]
    data[name] = frames.link
    shape = frames.shape or (0,)
    first = "."
    if shape[0] == stream.rows:
        first = _write_axes(data, stream, axes, start)[0]
    _describe(data, [name], [first, *["."] * (len(shape) - 1)])
    return list(shape)


def _describe(data: h5py.Group, signals: list[str], axes: list[str]) -> None:
    set_attributes(data, {"signal": signals[0], "axes": axes, "auxiliary_signals": signals[1:] or None})


def _attributes(stream: StreamTable, key: str) -> dict[str, object]:
    return key_attributes(key, stream.data_keys.get(key, {}))
