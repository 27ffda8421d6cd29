"""A profile for start-up files that have none: what bluesky-queueserver is pointed at becomes an instrument."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from bec_bluesky.errors import SettingsError
from bec_bluesky.plugins import KINDS, collection
from bec_bluesky.settings import Settings

__all__ = ["Startup"]

_WHERE = "re_manager_profile"
_PERMISSIONS = "user_group_permissions.yaml"
_PROFILE = """\
title = "Start-up files"

[[hosted]]
name = "bundler"
use = "callbacks.bundler:ScanBundler"
process = "live"

[[hosted]]
name = "tiled"
use = "writers.tiled:TiledWriter"
process = "tiled"
"""
_NO_DEVICES = "version: 1\ndevices: {}\n"
_PLANS_OF_MODULE = '''\
"""Plans of {module}."""

from importlib import import_module

_public = {{name: value for name, value in vars(import_module({module!r})).items() if not name.startswith("_")}}
globals().update(_public)
__all__ = sorted(_public)
'''


@dataclass(frozen=True)
class Startup:
    """Where plans come from, and who may use them."""

    directory: Path | None = None
    script: Path | None = None
    module: str | None = None
    permissions: Path | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no plans are named."""
        return not (self.directory or self.script or self.module)

    def profile(self, settings: Settings) -> Path | None:
        """Give the profile to start; None: that of the settings. Raises SettingsError for what is not there.

        A directory `startup` that stands in a profile means that profile. For others one is written in the data
        directory; it refers to the files where they are. A `devices.yaml` beside them says which devices there are.
        """
        directory = _existing(self.directory, "--startup-dir")
        script = _existing(self.script, "--startup-script")
        permissions = self._permissions()
        base = collection(settings) if self.is_empty else None
        if directory is not None and directory.name == "startup" and (directory.parent / "profile.toml").is_file():
            base = directory.parent
        if base is not None and permissions is None:
            return None if self.is_empty else _root_of(base)
        links = _links_of(base) if base is not None else _links_beside(directory or (script and script.parent))
        if directory is not None:
            links["startup"] = directory
        if script is not None:
            links[f"startup/{script.name}"] = script
        if permissions is not None:
            links[_PERMISSIONS] = permissions
        return _written(settings.data_dir / _WHERE, links, self.module)

    def _permissions(self) -> Path | None:
        path = _existing(self.permissions, "--user-group-permissions")
        if path is not None and path.is_dir():
            return _existing(path / _PERMISSIONS, "--user-group-permissions")
        return path


def _existing(path: Path | None, option: str) -> Path | None:
    if path is None:
        return None
    found = path.expanduser().absolute()
    if not found.exists():
        raise SettingsError(f"{option} {found} is not there: name what exists")
    return found


def _root_of(base: Path) -> Path:
    return base.parent if base.name == "profile_collection" else base


def _links_of(base: Path) -> dict[str, Path]:
    root = _root_of(base)
    content = {kind: root / kind for kind in KINDS if (root / kind).is_dir()}
    return {path.name: path for path in base.iterdir()} | content


def _links_beside(directory: Path | None) -> dict[str, Path]:
    if directory is None:
        return {}
    return {name: directory / name for name in ("devices.yaml", _PERMISSIONS) if (directory / name).is_file()}


def _written(where: Path, links: dict[str, Path], module: str | None) -> Path:
    shutil.rmtree(where, ignore_errors=True)  # what is linked stays
    where.mkdir(parents=True)
    for name, target in links.items():
        (where / name).parent.mkdir(exist_ok=True)
        (where / name).symlink_to(target)
    for name, text in (("profile.toml", _PROFILE), ("devices.yaml", _NO_DEVICES)):
        if name not in links:
            (where / name).write_text(text, encoding="utf-8")
    if module is not None:
        (where / "plans").mkdir()
        text = _PLANS_OF_MODULE.format(module=module)
        (where / "plans" / "startup_module.py").write_text(text, encoding="utf-8")
    return where
