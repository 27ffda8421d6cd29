"""The modules from which devices are made.

Only what people edit is imported anew: the instrument's profile and packages that are installed editable; never the
standard library, what is in site-packages, or this package.
"""

import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bec_bluesky.device_server import _layers
from bec_bluesky.device_server._device_file import DeviceSpec

__all__ = ["modules_of"]

_MOST_DEPTH = 8
_INSTALLED = tuple(
    {str(Path(sysconfig.get_paths()[kind]).resolve()) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
)


def modules_of(spec: DeviceSpec, device: Any) -> set[str]:
    """Give the editable modules of a device's class and its bases, of its parts' and of its arguments'."""
    classes = set(_classes(device)) if device is not None else set[type]()
    names = {target.partition(":")[0] for target in (spec.class_, *_targets([spec.args, spec.kwargs]))}
    names |= {base.__module__ for cls in classes for base in cls.__mro__}
    found = getattr(sys.modules.get(spec.class_.partition(":")[0]), spec.class_.partition(":")[2], None)
    if isinstance(found, type):  # a device that could not be built has no parts to ask
        names |= {base.__module__ for base in found.__mro__}
    return {name for name in names if _is_editable(name)}


def _classes(device: Any, depth: int = 0) -> Iterator[type]:
    yield type(device)
    if depth < _MOST_DEPTH:
        for _, child in _layers.children(device):
            yield from _classes(child, depth + 1)


def _targets(value: Any) -> Iterator[str]:
    """Give what `$obj` and `$type` name."""
    if isinstance(value, Mapping):
        for word in ("$obj", "$type"):
            if isinstance(value.get(word), str):
                yield value[word]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _targets(each)


def _is_editable(name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or name.partition(".")[0] in ("bec_bluesky", "__main__"):
        return False
    path = str(Path(file).resolve())
    return path.endswith(".py") and not path.startswith(_INSTALLED)
