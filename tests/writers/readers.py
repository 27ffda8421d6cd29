"""What validators and readers of NeXus say of files, asked in a process of its own: they change settings of Python.

`python -m tests.writers.readers FILE…` prints {file: {reader: [complaint, …]}}.
"""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def complaints(paths: Iterable[Path]) -> dict[Path, dict[str, list[str]]]:
    """Ask pynxtools, nexusformat and silx of each file."""
    given = list(paths)
    command = [sys.executable, "-m", "tests.writers.readers", *map(str, given)]
    asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert asked.returncode == 0, asked.stderr
    answers = json.loads(asked.stdout.splitlines()[-1])
    return {path: answers[str(path)] for path in given}


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _pynxtools(path: str) -> list[str]:
    """Check a file as what it claims to be; one that claims nothing by its base classes."""
    import h5py
    from pynxtools.dataconverter.validation import validate_hdf_group_against

    kept = _Kept()
    logging.getLogger("pynxtools").addHandler(kept)
    try:
        with h5py.File(path) as file:
            entry: Any = file[file.attrs["default"]]
            claimed = entry["definition"].asstr()[()] if "definition" in entry else None
            if not validate_hdf_group_against(claimed or "NXrun_file", entry, path, claimed is None):
                kept.texts.append(f"not valid as {claimed or 'a run file'}")
    finally:
        logging.getLogger("pynxtools").removeHandler(kept)
    return kept.texts


@contextlib.contextmanager
def _definitions() -> Iterator[None]:
    """Add our definition to those that pynxtools brings."""
    import pynxtools

    theirs = Path(pynxtools.__file__).parent / "definitions"
    with tempfile.TemporaryDirectory() as folder:
        applications = Path(folder) / "applications"
        applications.mkdir()
        for path in (*(theirs / "applications").glob("*.xml"), *(Path(__file__).parent / "definitions").glob("*.xml")):
            (applications / path.name).symlink_to(path)
        for name in ("base_classes", "contributed_definitions"):
            (Path(folder) / name).symlink_to(theirs / name)
        os.environ["NEXUS_DEF_PATH"] = folder
        yield


def _nexusformat(path: str) -> list[str]:
    from nexusformat.nexus import validate

    validate.logger.setLevel(logging.ERROR)
    kept = _Kept()
    validate.logger.addHandler(kept)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            errors = _errors(validate.validate_file(path))
            import h5py

            with h5py.File(path) as file:
                is_defined = "definition" in file[file.attrs["default"]]
            if is_defined:
                errors += _errors(validate.validate_application(path))
    finally:
        validate.logger.removeHandler(kept)
    return [text.strip() for text in kept.texts if text.strip()] if errors else []


def _errors(counts: Any) -> int:
    return 1 if counts is None else int(counts[1])


def _silx(path: str) -> list[str]:
    import h5py
    from silx.io import nxdata

    with h5py.File(path) as file:
        plot = nxdata.get_default(file)
        if plot is None:
            return ["no default plot"]
        found = list(plot.issues)
        if plot.signal is None or not plot.signal.size:
            found.append("nothing to plot")
        return found


def main() -> None:
    warnings.simplefilter("ignore")
    readers = {"pynxtools": _pynxtools, "nexusformat": _nexusformat, "silx": _silx}
    answers: dict[str, dict[str, list[str]]] = {}
    with _definitions():
        for path in sys.argv[1:]:
            answers[path] = {name: reader(path) for name, reader in readers.items()}
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main()
