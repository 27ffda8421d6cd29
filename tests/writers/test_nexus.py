"""Runs of a real RunEngine into NeXus files, and out again with h5py and nexusformat."""

from datetime import datetime
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from nexusformat.nexus import nxload
from ophyd import Signal
from ophyd.sim import SynAxis, SynGauss

from bec_bluesky.documents import FileReady
from bec_bluesky.errors import SettingsError
from tests.writers.nexus_harness import column, run
from writers.nexus import NexusWriter, read_documents


def test_the_file_tells_who_what_and_when(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis, gauss: SynGauss
) -> None:
    about: dict[str, Any] = {"user": "Ada", "sample": {"name": "Si 111", "thickness": 0.5}, "proposal": "p123"}
    about |= {"beamline": "X12", "purpose": "alignment", "odd limits": [1, 2.5]}
    documents = run(run_engine, bp.scan([gauss], motor, -2, 2, 3), writer, **about)
    with h5py.File(emitted[0].path) as file:
        entry = file["entry"]
        assert entry["entry_identifier"].asstr()[()] == documents[0][1]["uid"]
        assert entry["start_time"].asstr()[()][-6] in "+-"
        assert entry["end_time"].asstr()[()] >= entry["start_time"].asstr()[()]
        assert entry["run/scan_id"][()] == 1
        assert entry["run/plan_name"].asstr()[()] == "scan"
        assert '"num":3' in entry["run/plan_args"].asstr()[()]
        assert entry["run/exit_status"].asstr()[()] == "success"
        assert entry["user/name"].asstr()[()] == "Ada"
        assert entry["user"].attrs["NX_class"] == "NXuser"
        assert entry["sample/name"].asstr()[()] == "Si 111"
        assert entry["sample/thickness"][()] == 0.5
        assert entry["experiment_identifier"].asstr()[()] == "p123"
        assert entry["program_name"].asstr()[()] == "bec-bluesky"
        assert entry["instrument/name"].asstr()[()] == "X12"
        assert entry["run/metadata/purpose"].asstr()[()] == "alignment"
        assert entry["run/metadata/odd_limits"][()].tolist() == [1, 2.5]


def test_devices_are_positioners_and_detectors_with_their_configuration(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis, gauss: SynGauss
) -> None:
    plain = Signal(name="plain", value=3, kind="normal")
    documents = run(run_engine, bp.scan([gauss, plain], motor, -2, 2, 5), writer)
    with h5py.File(emitted[0].path) as file:
        instrument = file["entry/instrument"]
        assert instrument["motor"].attrs["NX_class"] == "NXpositioner"
        assert instrument["motor/value"][()].tolist() == column(documents, "motor")
        assert instrument["motor/value"] == file["entry/streams/primary/motor"], "a link, not a copy"
        assert instrument["motor/value"].attrs["source"] == "SIM:motor"
        assert instrument["motor/value"].attrs["precision"] == 3
        stamps = [doc["timestamps"]["motor"] for name, doc in documents if name == "event"]
        assert instrument["motor/value_timestamps"][()].tolist() == stamps
        assert instrument["motor/configuration/motor_velocity"][()] == 1
        assert instrument["gauss"].attrs["NX_class"] == "NXdetector"
        assert instrument["gauss/data"][()].tolist() == column(documents, "gauss")
        assert list(instrument["gauss/configuration/gauss_noise"].attrs["enum_strs"]) == ["none", "poisson", "uniform"]
        assert instrument["plain/value"][()].tolist() == [3] * 5


def test_baseline_and_monitors_have_their_places(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis, gauss: SynGauss
) -> None:
    table, ring = Signal(name="table", value=7.5), Signal(name="ring", value=1.0)

    def step(detectors: Any, step: Any, pos_cache: Any) -> Any:
        yield from bps.abs_set(ring, ring.get() + 0.25, wait=True)
        yield from bps.one_nd_step(detectors, step, pos_cache)

    plan = bp.scan([gauss], motor, 0, 1, 3, per_step=step)
    plan = bpp.monitor_during_wrapper(bpp.baseline_wrapper(plan, [table]), [ring])
    documents = run(run_engine, plan, writer)
    with h5py.File(emitted[0].path) as file:
        assert file["entry/baseline/table"][()].tolist() == [7.5, 7.5]
        log = file["entry/monitors/ring"]
        assert log.attrs["NX_class"] == "NXlog"
        assert log["value"][()].tolist() == column(documents, "ring")
        assert log["value"][()].tolist()[-3:] == [1.25, 1.5, 1.75]
        stamps = [doc["timestamps"]["ring"] for name, doc in documents if name == "event" and "ring" in doc["data"]]
        begin = documents[0][1]["time"]
        assert log["time"][()].tolist() == [stamp - begin for stamp in stamps]
        assert datetime.fromisoformat(log["time"].attrs["start"]).timestamp() == pytest.approx(begin, abs=1e-5)
        assert log["time"].attrs["units"] == "s"
        assert log["timestamps"][()].tolist() == stamps
        assert file["entry/instrument/table"].attrs["NX_class"] == "NXcollection"
        assert file["entry/instrument/table/value"][()].tolist() == [7.5, 7.5]
        assert file["entry"].attrs["default"] == "data"


def test_an_aborted_run_keeps_what_was_measured(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis, gauss: SynGauss
) -> None:
    def plan() -> Any:
        yield from bps.open_run({"plan_name": "broken"})
        for position in range(3):
            yield from bps.mv(motor, position)
            yield from bps.trigger_and_read([gauss, motor])
        raise RuntimeError("the shutter fell")

    with pytest.raises(RuntimeError, match="shutter"):
        run(run_engine, plan(), writer)
    with h5py.File(emitted[0].path) as file:
        assert file["entry/streams/primary/motor"][()].tolist() == [0, 1, 2]
        assert file["entry/run/exit_status"].asstr()[()] == "fail"
        assert "the shutter fell" in file["entry/run/reason"].asstr()[()]
    assert nxload(emitted[0].path).plottable_data.nxsignal.shape == (3,)


def test_a_run_without_events_makes_a_file_without_a_plot(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady]
) -> None:
    documents = run(run_engine, bpp.run_wrapper(bps.null()), writer)
    with h5py.File(emitted[0].path) as file:
        assert file.attrs["default"] == "entry"
        assert "default" not in file["entry"].attrs
        assert "data" not in file["entry"]
    assert list(read_documents(emitted[0].path)) == documents


def test_a_subscribed_writer_follows_a_run_that_was_paused(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis, gauss: SynGauss
) -> None:
    token = run_engine.subscribe(writer)

    def plan() -> Any:
        yield from bps.open_run()
        for position in range(4):
            yield from bps.checkpoint()
            yield from bps.mv(motor, position)
            yield from bps.trigger_and_read([gauss, motor])
            if position == 2 and run_engine.state == "running" and not paused:
                paused.append(position)
                yield from bps.pause()
        yield from bps.close_run()

    paused: list[int] = []
    with pytest.raises(RunEngineInterrupted):
        run_engine(plan())
    run_engine.resume()
    run_engine.unsubscribe(token)
    with h5py.File(emitted[0].path) as file:
        assert file["entry/streams/primary/motor"][()].tolist() == column(
            list(read_documents(emitted[0].path)), "motor"
        )
        assert file["entry/streams/primary/motor"][()].tolist()[-1] == 3


def test_a_run_engine_survives_a_writer_that_cannot_write(
    run_engine: RunEngine, root: Path, motor: SynAxis, gauss: SynGauss
) -> None:
    writer = NexusWriter(directory=root, min_free=10**18)
    with pytest.raises(SettingsError, match=r"MB left, and .* MB are to stay free"):
        run(run_engine, bp.scan([gauss], motor, -2, 2, 3), writer)
    assert run_engine.state == "idle"
    assert not list(root.rglob("*.part"))
    assert len(run(run_engine, bp.scan([gauss], motor, -2, 2, 3))) == 6
