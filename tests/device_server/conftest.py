"""A client on the raw wire, and a device server with devices of both layers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.device_server import DeviceServer
from bec_bluesky.settings import Settings
from tests.device_server.device_server_harness import Client, serving, with_devices

DEVICES = """
axis: {class: "ophyd.sim:SynAxis", limits: {low: -5, high: 5}}
det: {class: "ophyd.sim:SynGauss", kwargs: {motor: {$ref: axis}, motor_field: axis, center: 0, Imax: 10}}
sig: {class: "ophyd:Signal", kwargs: {value: 1.0}}
motor: {class: "ophyd_async.sim:SimMotor", limits: {low: -100, high: 100}}
late: {class: "ophyd.sim:SynAxis", kwargs: {delay: 0.2}}
slow: {class: "ophyd_async.sim:SimMotor", kwargs: {instant: false}, set: {velocity: 1.0, acceleration_time: 0.1}}
slow2: {class: "ophyd_async.sim:SimMotor", kwargs: {instant: false}}
creeping: {class: "tests.proxy.conformance_devices:Creeping"}
grumbling: {class: "tests.device_server.odd_devices:Grumbling"}
steady: {class: "ophyd_async.sim:SimMotor", kwargs: {instant: false}, on_client_lost: continue}
soft: {class: "ophyd_async.core:soft_signal_rw", args: [{$type: float}, 1.5], kwargs: {units: K}}
fixed: {class: "ophyd_async.core:soft_signal_rw", args: [{$type: float}, 1.5], read_only: true}
fresh: {class: "ophyd_async.core:soft_signal_rw", args: [{$type: float}, 1.5], fresh: true}
blob:
  class: ophyd_async.sim:SimBlobDetector
  kwargs: {path_provider: {$obj: devices.paths:DatedPaths, directory: "{files_dir}"}}
napper: {class: "tests.device_server.odd_devices:Napper", kwargs: {pace: 0.3}}
dozer: {class: "tests.device_server.odd_devices:Napper", kwargs: {pace: 0.3}, blocking: true}
confined: {class: "tests.device_server.odd_devices:Confined", kwargs: {limits: [-2, 2]}}
lingering: {class: "tests.device_server.odd_devices:Lingering"}
unstoppable: {class: "tests.device_server.odd_devices:Unstoppable"}
burst:
  class: devices.burst:Burst
  kwargs: {movers: [{$ref: axis}, {$ref: motor}, {$ref: fixed}], detectors: [{$ref: det}]}
stalling: {class: "tests.device_server.odd_devices:Stalling", call_timeout: 0.5}
stalling_async: {class: "tests.device_server.odd_devices:StallingAsync", call_timeout: 0.5, done_timeout: 0.5}
flyer: {class: "ophyd.sim:MockFlyer", args: [flyer, {$ref: det}, {$ref: axis}, -1, 1, 5]}
""" + "".join(
    [
        f'napper{number}: {{class: "tests.device_server.odd_devices:Napper"}}\n'  # more than there are threads
        for number in range(20)
    ]
    + [
        # blocking, so that no readback is taken of them
        f'f_{policy}: {{class: "tests.device_server.odd_devices:Failing", on_failure: {policy}, blocking: true}}\n'
        for policy in ("raise", "retry", "buffer", "ignore")
    ]
)


@pytest.fixture
async def server(settings: Settings, bus: Bus, tmp_path: Path) -> AsyncIterator[DeviceServer]:
    """A running device server."""
    async with serving(with_devices(settings, tmp_path, DEVICES), bus) as server:
        yield server


@pytest.fixture
async def client(bus: Bus) -> AsyncIterator[Client]:
    """A client on the raw wire."""
    client = Client(bus)
    await client.connect()
    yield client
    client.close()
