"""A suspender on a PV holds a run in the queue until the PV is back, whatever the library and the protocol."""

import pytest

from tests.iocs.hardware import Hardware
from tests.live_system import until

pytestmark = pytest.mark.timeout(300)
NUM = 16


@pytest.mark.parametrize(
    ("signal", "ioc", "pv"),
    [
        ("exposure", "mini", "mini:dot:exp"),
        ("ca_types.a_float", "types", "tst:ca:float"),
        ("pva_types.a_float", "types", "tst:pva:float"),
    ],
)
def test_a_run_is_held_while_a_pv_is_low(hardware: Hardware, signal: str, ioc: str, pv: str) -> None:
    owner = getattr(hardware, ioc)

    def points() -> int:
        progress = hardware.bl.status.progress
        return 0 if progress is None else progress.points

    owner.put(pv, 1.0)
    item = hardware.add("guarded", signal, NUM)
    try:
        until(lambda: points() >= 3, "some points")
        owner.put(pv, 0.0)
        hardware.tick(3)
        held = points()
        hardware.tick(3)
        assert points() == held < NUM
    finally:
        owner.put(pv, 1.0)
    done = item.wait(60.0)
    assert done.result is not None and done.result.exit_status == "completed", done.result.reason
    numbers = {document["seq_num"] for name, document in hardware.documents(done) if name == "event"}
    assert numbers == set(range(1, NUM + 1))
