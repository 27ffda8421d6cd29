"""Reduced scattering data as NXcanSAS: valid, and the profile that the simulated camera was lit with."""

import json
import shutil
from pathlib import Path, PurePath
from typing import Any

import bluesky.plans as bp
import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from ophyd.sim import SynAxis, SynSignal
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider
from ophyd_async.plan_stubs import ensure_connected
from ophyd_async.sim import PatternGenerator

from bec_bluesky.documents import export_run
from bec_bluesky.errors import RefusedError
from bec_bluesky.settings import load
from devices.saxs import SaxsCamera
from plans.saxs import saxs_scan
from tests.writers.nexus_harness import Documents, run
from tests.writers.readers import complaints
from writers.nxcansas import export

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pyFAI's imports
BRIGHTNESS = (1.0, 0.5, 0.25)
"""Of the three frames."""


def profile(q: np.ndarray) -> np.ndarray:
    """A ring at 0.6 1/nm on a flat background, in counts of a pixel."""
    return 40 + 200 * np.exp(-(((q - 0.6) / 0.08) ** 2) / 2)


def pixel_q(shape: tuple[int, int] = (240, 320)) -> np.ndarray:
    """Q of each pixel of `SaxsCamera` in 1/nm: 1 angstrom, 2 m, pixels of 0.172 mm."""
    rows, columns = np.indices(shape) + 0.5
    radius = np.hypot(columns * 0.172e-3 - 27.52e-3, rows * 0.172e-3 - 20.64e-3)
    return 4 * np.pi / 0.1 * np.sin(np.arctan2(radius, 2.0) / 2)


class Rings(PatternGenerator):
    """Lights the camera with the profile, frame by frame as bright as `BRIGHTNESS`."""

    def open_file(self, path: PurePath, width: int, height: int) -> None:
        super().open_file(path, width, height)
        self._get_file().blob = profile(pixel_q((height, width))) + 0.5  # it is rounded down

    def generate_point(self, channel: int = 1, high_energy: bool = False) -> float:
        return BRIGHTNESS[self._get_file().image_counter % 3] / self._exposure


@pytest.fixture
def scanned(run_engine: RunEngine, motor: SynAxis, tmp_path: Path) -> Documents:
    folder = tmp_path / "frames"
    folder.mkdir()
    camera = SaxsCamera(StaticPathProvider(UUIDFilenameProvider(), folder), Rings(), name="saxs")
    run_engine(ensure_connected(camera))
    return run(run_engine, saxs_scan(camera, motor, -1, 1, 3), beamline="sim", sample="PE", title="a ring")


def only(artifacts: dict[str, list[Path]]) -> Path:
    (path,) = artifacts["stream_data"]
    return path


def test_the_curve_is_the_profile_that_the_camera_saw(scanned: Documents, tmp_path: Path) -> None:
    path = only(export(scanned, tmp_path, "{scan_id:04d}_{sample}"))
    assert path.name == "0001_PE_iq.h5"
    with h5py.File(path) as file:
        data = file["entry/data"]
        assert data.attrs["signal"] == "I"
        q, intensity, deviation = (data[name][()] for name in ("Q", "I", data["I"].attrs["uncertainties"]))
        assert (data["Q"].attrs["units"], data["I"].attrs["units"]) == ("1/nm", "arbitrary")
    assert len(q) > 150
    assert (q[0], q[-1]) == pytest.approx((pixel_q().min(), pixel_q().max()), abs=0.005)
    expected = profile(q) * np.mean(BRIGHTNESS)
    assert np.abs(intensity - expected).max() < 1.5  # of 140 counts
    edges = np.linspace(pixel_q().min(), pixel_q().max(), 201)  # 200 bins: the corner is 200 pixels away
    pixels, _ = np.histogram(pixel_q(), edges)
    assert np.median(deviation / np.sqrt(expected / 3 / pixels[pixels > 0])) == pytest.approx(1, abs=0.02)


def test_each_frame_has_its_curve_along_the_scan(scanned: Documents, tmp_path: Path) -> None:
    path = only(export(scanned, tmp_path, "each", frames="each", bins=80, units="1/angstrom"))
    with h5py.File(path) as file:
        data = file["entry/data"]
        assert data.attrs["I_axes"] == "motor,Q"
        assert (data.attrs["motor_indices"], data.attrs["Q_indices"]) == (0, 1)
        assert data["motor"][:].tolist() == [-1, 0, 1]
        q, intensity, deviation = (data[name][()] for name in ("Q", "I", "Idev"))
    assert intensity.shape == deviation.shape == (3, len(q))
    assert len(q) == 80
    for curve, brightness in zip(intensity, BRIGHTNESS, strict=True):
        assert np.abs(curve - profile(10 * q) * brightness).max() < 5 * brightness + 0.5  # wide bins


def test_the_file_is_valid_and_says_how_it_was_made(scanned: Documents, tmp_path: Path) -> None:
    average, each = (only(export(scanned, tmp_path, kind, frames=kind)) for kind in ("average", "each"))
    broken = tmp_path / "broken.h5"
    shutil.copy(average, broken)
    with h5py.File(broken, "r+") as file:
        del file["entry/data"].attrs["canSAS_class"]
        file["entry/data/Q"].attrs["units"] = "furlong"
    found = complaints([average, each, broken])
    assert found[average] == found[each] == {"pynxtools": [], "nexusformat": [], "silx": []}
    assert any("canSAS_class" in text for text in found[broken]["pynxtools"])  # it does look
    assert any("furlong" in text for text in found[broken]["pynxtools"])
    with h5py.File(average) as file:
        entry = file["entry"]
        assert {name: entry[name].attrs["canSAS_class"] for name in ("data", "instrument", "sample", "process")} == {
            "data": "SASdata", "instrument": "SASinstrument", "sample": "SASsample", "process": "SASprocess",
        }  # fmt: skip
        assert (entry.attrs["canSAS_class"], entry.attrs["version"]) == ("SASentry", "1.1")
        assert [entry[name].asstr()[()] for name in ("title", "run", "sample/name")] == ["a ring", "1", "PE"]
        assert entry["instrument/detector/SDD"][()] == 2.0
        assert entry["instrument/source/incident_wavelength"].attrs["units"] == "angstrom"
        assert entry["process/program"].asstr()[()] == "pyFAI"
        assert entry["process/frames"].asstr()[()] == "3"
        assert float(entry["process/wavelength"].asstr()[()]) == pytest.approx(1e-10)
        assert json.loads(entry["start_document/data"][()])["uid"] == scanned[0][1]["uid"]


def test_masked_and_invalid_pixels_are_left_out(scanned: Documents, tmp_path: Path) -> None:
    (frames,) = (tmp_path / "frames").iterdir()
    with h5py.File(frames, "r+") as file:
        wide = file["entry/data/data"][()].astype(np.uint32)
        wide[0, 10, 20] = 2**32 - 1  # a gap, as Dectris marks it
        wide[1, 120:, :] = 100_000  # what the mask covers
        del file["entry/data/data"]
        file["entry/data/data"] = wide
    mask = np.zeros((240, 320))
    mask[120:] = 1
    np.save(tmp_path / "mask.npy", mask)
    path = only(export(scanned, tmp_path, mask=tmp_path / "mask.npy"))
    with h5py.File(path) as file:
        q, intensity = file["entry/data/Q"][()], file["entry/data/I"][()]
        assert int(file["entry/process/masked_pixels"].asstr()[()]) == 120 * 320 + 1
    assert np.abs(intensity - profile(q) * np.mean(BRIGHTNESS)).max() < 2.5
    np.save(tmp_path / "small.npy", mask[:10])
    with pytest.raises(RefusedError, match=r"\(10, 320\), and the frames are \(240, 320\)"):
        export(scanned, tmp_path, "other", mask=tmp_path / "small.npy")


@pytest.mark.parametrize("frames", ["average", "each"])
def test_a_curve_that_the_run_has_is_taken_as_it_is(
    run_engine: RunEngine, motor: SynAxis, tmp_path: Path, frames: Any
) -> None:
    q = np.linspace(0.01, 0.3, 30)
    reader = {name: SynSignal(name=name, func=lambda each=each: each) for name, each in
              {"q": q, "iq": profile(10 * q), "diq": np.full(30, 2.0)}.items()}  # fmt: skip
    documents = run(run_engine, bp.scan(list(reader.values()), motor, 0, 3, 4), sample="PE", techniques=[
        {"technique": "SAXS", "nxcansas": {"Q": "q", "I": "#bluesky/events/primary/data/iq", "Idev": "diq"}}
    ])  # fmt: skip
    with pytest.raises(RefusedError, match="Q is in ''"):
        export(documents, tmp_path)
    assert list(tmp_path.iterdir()) == []
    for name, document in documents:
        if name == "descriptor":
            document["data_keys"]["q"]["units"] = "A^-1"
            document["data_keys"]["iq"]["units"] = document["data_keys"]["diq"]["units"] = "cm^-1"
    path = only(export(documents, tmp_path, frames=frames))
    with h5py.File(path) as file:
        data = file["entry/data"]
        assert np.array_equal(data["Q"][()], q)
        assert (data["Q"].attrs["units"], data["I"].attrs["units"]) == ("1/angstrom", "1/cm")
        rows = 4 if frames == "each" else 1
        assert np.allclose(data["I"][()].reshape(rows, 30), profile(10 * q))
        assert np.allclose(data["Idev"][()], 2.0 if frames == "each" else 1.0)
        if frames == "each":
            assert data["motor"][:].tolist() == [0, 1, 2, 3]
    assert complaints([path])[path] == {"pynxtools": [], "nexusformat": [], "silx": []}


def test_a_run_without_either_is_refused_with_what_is_missing(
    run_engine: RunEngine, motor: SynAxis, scanned: Documents, tmp_path: Path
) -> None:
    with pytest.raises(RefusedError, match=r"monochromator/wavelength.*beam_center_x is not given"):
        export(run(run_engine, bp.count([motor])), tmp_path / "out")
    with pytest.raises(RefusedError, match="no frames='all': there are average, each"):
        export(scanned, tmp_path / "out", frames="all")  # pyright: ignore[reportArgumentType]  # the point
    with pytest.raises(RefusedError, match="no units 'nm'"):
        export(scanned, tmp_path / "out", units="nm")
    with pytest.raises(RefusedError, match="bins is a number, not 'x'"):
        export(scanned, tmp_path / "out", bins="x")  # pyright: ignore[reportArgumentType]  # the point
    with pytest.raises(RefusedError, match=r"bins is a number, not 2\.5"):
        export(scanned, tmp_path / "out", bins=2.5)  # pyright: ignore[reportArgumentType]  # the point
    with pytest.raises(RefusedError, match="Q = 5 names no numbers"):
        export(scanned, tmp_path / "out", reduced={"Q": 5, "I": "saxs"})  # pyright: ignore[reportArgumentType]  # the point
    with pytest.raises(RefusedError, match="Q = 'nothing' names no numbers"):
        export(scanned, tmp_path / "out", reduced={"Q": "nothing", "I": "saxs"})
    assert not any((tmp_path / "out").iterdir())


def test_it_is_a_format_of_the_export_with_options(scanned: Documents, tmp_path: Path) -> None:
    options = {"bins": 50, "frames": "each"}
    (path,) = export_run(load(), scanned, tmp_path / "out", "nxcansas", prefix="{plan_name}", options=options)
    with h5py.File(path) as file:
        assert file["entry/data/I"].shape == (3, 50)
    with pytest.raises(FileExistsError):
        export_run(load(), scanned, tmp_path / "out", "nxcansas", prefix="{plan_name}")
    with pytest.raises(RefusedError, match="nxcansas has no option 'bin': did you mean 'bins'"):
        export_run(load(), scanned, tmp_path / "out", "nxcansas", options={"bin": 3})
