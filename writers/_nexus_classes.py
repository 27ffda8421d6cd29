"""Which NeXus class a device has: by the profile, by the device itself, by its labels, or by its part in the run."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bec_bluesky.errors import SettingsError

__all__ = ["DeviceClasses"]

_OF_LABELS = {
    "motors": "NXpositioner",
    "positioners": "NXpositioner",
    "detectors": "NXdetector",
    "cameras": "NXdetector",
    "monitors": "NXmonitor",
    "sources": "NXsource",
    "insertion_devices": "NXinsertion_device",
    "monochromators": "NXmonochromator",
    "mirrors": "NXmirror",
    "slits": "NXslit",
    "attenuators": "NXattenuator",
    "filters": "NXfilter",
    "beam_stops": "NXbeam_stop",
    "sensors": "NXsensor",
    "temperature_controllers": "NXsensor",
}
_KNOWN = {*_OF_LABELS.values(), "NXcollection", "NXaperture", "NXcollimator", "NXcrystal", "NXgrating", "NXbeam"}
_KNOWN |= {"NXbending_magnet", "NXflipper", "NXpolarizer", "NXpinhole", "NXxraylens", "NXelectromagnetic_lens"}
_KNOWN |= {"NXdisk_chopper", "NXfermi_chopper", "NXvelocity_selector", "NXguide", "NXmoderator", "NXfiber"}


class DeviceClasses:
    """The classes that a profile gives: `classes` by patterns of device names, and labels of the device file."""

    def __init__(self, classes: Mapping[str, str] | None = None, device_file: str | Path | None = None) -> None:
        self._patterns = dict(classes or {})
        self._device_file = None if device_file is None else Path(device_file).expanduser()
        self._labels: dict[str, list[str]] = {}
        self._read_at = 0
        for pattern, nx_class in self._patterns.items():
            if nx_class not in _KNOWN:
                raise SettingsError(
                    f"classes: {pattern!r} = {nx_class!r} is no class of a device: {', '.join(sorted(_KNOWN))}"
                )

    def of(self, device: str, hinted: Iterable[str]) -> str | None:
        """Give the class of a device; `hinted` are those its descriptors name. None: as its part in the run is."""
        for pattern, nx_class in self._patterns.items():
            if fnmatchcase(device, pattern):
                return nx_class
        for nx_class in hinted:
            if nx_class in _KNOWN:
                return nx_class
        labels = self._labels_of(device)
        return next((_OF_LABELS[label] for label in labels if label in _OF_LABELS), None)

    def _labels_of(self, device: str) -> list[str]:
        """Read the device file again when it has changed; one that cannot be read gives no labels."""
        if self._device_file is None:
            return []
        try:
            changed = self._device_file.stat().st_mtime_ns
            if changed != self._read_at:
                self._labels = _read_labels(self._device_file)
                self._read_at = changed
        except (OSError, ValueError):
            return []
        return self._labels.get(device, [])


def _read_labels(path: Path) -> dict[str, list[str]]:
    from ruamel.yaml import YAML, YAMLError

    loader: Any = YAML(typ="safe", pure=True)
    try:
        devices = (loader.load(path.read_text(encoding="utf-8")) or {}).get("devices") or {}
        return {str(name): [str(label) for label in entry.get("labels") or ()] for name, entry in devices.items()}
    except (AttributeError, TypeError, YAMLError) as error:
        raise ValueError(f"{path}: {error}") from None
