"""A scripted peer in the worker's place, for tests of the manager alone: it speaks the frames, and has no RunEngine.

Its plans do what their names say: `quick`, `wait` (until it is controlled), `die`, `freeze`, `deaf` (ignores control),
`exits`, `crash` (in C code), `leak` (a gigabyte, then waits), `brief`, `late_check` (waits, after a check that takes a
while), and `far`, which its check refuses. It starts in milliseconds.
"""

import argparse
import ctypes
import os
import queue
import signal
import socket
import sys
import threading
import time
import uuid

from bec_bluesky.errors import BadArgumentError
from bec_bluesky.messages import decoder, encode
from bec_bluesky.messages.failures import tell
from bec_bluesky.messages.queue import ItemResult, Parameter, PlanInfo, Progress
from bec_bluesky.messages.worker import (
    CheckItem,
    CheckResult,
    Control,
    FromWorker,
    ModulesReloaded,
    Ping,
    Pong,
    ReloadModules,
    RunItem,
    RunStarted,
    RunState,
    RunStopped,
    Shutdown,
    ToWorker,
    WorkerItemDone,
    WorkerProgress,
    WorkerReady,
)

PLANS = ("quick", "wait", "die", "freeze", "deaf", "exits", "crash", "leak", "brief", "far", "slow_check", "late_check")
ENDINGS = {"finish": "completed", "skip": "stopped", "stop": "stopped", "abort": "aborted", "halt": "halted"}


class Peer:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._controls: queue.Queue[str] = queue.Queue()
        self._lock = threading.Lock()
        self._running: threading.Thread | None = None
        self._ended_by = ""

    def say(self, message: FromWorker) -> None:
        data = encode(message)
        with self._lock:
            self._connection.sendall(len(data).to_bytes(4, "big") + data)

    def serve(self) -> None:
        note = Parameter(name="note", kind="keyword_only", has_default=True, default="''", default_value="")
        plans = [PlanInfo(name=name, module="scripted", parameters=[note]) for name in PLANS]
        self.say(WorkerReady(pid=os.getpid(), plans=plans, device_client=f"client-{os.getpid()}"))
        file = self._connection.makefile("rb")
        decode = decoder(ToWorker).decode
        while head := file.read(4):
            message = decode(file.read(int.from_bytes(head, "big")))
            match message:
                case Ping(number=number):
                    self.say(Pong(number=number))
                case CheckItem():
                    self.check(message)
                case ReloadModules():
                    self.say(ModulesReloaded(plans=plans))
                case RunItem():
                    self._controls = queue.Queue()  # what came for the one before, and too late, is not for this one
                    self._running = threading.Thread(target=self.run, args=(message,), daemon=True)
                    self._running.start()
                case Control(action=action):
                    self._controls.put(action)
                case Shutdown():
                    break
        self._controls.put("abort")
        if self._running is not None:
            self._running.join(5.0)

    def check(self, message: CheckItem) -> None:
        if message.item.plan == "slow_check":
            time.sleep(60)
        if message.item.plan == "late_check":
            time.sleep(0.3)
        failure = (
            tell(BadArgumentError("far: point 3 moves x to 99, beyond 10")) if message.item.plan == "far" else None
        )
        self.say(CheckResult(check_id=message.check_id, failure=failure, points=5, devices=_devices(message)))

    def run(self, message: RunItem) -> None:
        self._ended_by = ""
        item, uid, begun = message.item, str(uuid.uuid4()), time.time()
        if "SCRIPTED_WORKER_LOG" in os.environ:
            with open(os.environ["SCRIPTED_WORKER_LOG"], "a") as log:  # noqa: PTH123  # one write, appended whole
                log.write(f"{item.item_id}\n")
        self.say(RunState(state="running"))
        self.say(RunStarted(run_uid=uid, scan_id=1, expected=5))
        self.say(WorkerProgress(progress=Progress(points=2, expected=5)))
        exit_status = self.act(item.plan)
        self.say(RunStopped(run_uid=uid, exit_status="success"))
        self.say(RunState(state="idle"))
        result = ItemResult(
            exit_status=exit_status,  # pyright: ignore[reportArgumentType]
            run_uids=[uid],
            scan_ids=[1],
            time_start=begun,
            time_stop=time.time(),
            reason="" if exit_status == "completed" else "as it was told",
            ended_by=self._ended_by,  # pyright: ignore[reportArgumentType]
        )
        self.say(WorkerItemDone(item_id=item.item_id, result=result))

    def act(self, plan: str) -> str:
        match plan:
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(60)  # other threads, this one too, may run a little until all are stopped
            case "leak":
                kept = [bytearray(b"x") * 10**7 for _ in range(100)]  # in steps, so that it answers meanwhile
                self._controls.get()
                del kept
            case "crash":
                ctypes.string_at(0)
            case "exits":
                os.write(1, b"the last thing it said\n")
                os._exit(3)
            case "deaf":
                time.sleep(60)
            case "brief":
                time.sleep(0.02)
            case "wait" | "late_check":
                return self.wait()
        return "completed"

    def wait(self) -> str:
        while True:
            action = self._controls.get()
            if action in ("pause", "pause_now"):
                self.say(RunState(state="paused"))
            elif action == "resume":
                self.say(RunState(state="running"))
            else:
                self._ended_by = action
                return ENDINGS[action]


def _devices(message: CheckItem) -> list[str]:
    """Give the devices that the item's note names, `x` without one; `both` is two."""
    named = str(message.item.kwargs.get("note") or "x")
    return ["x", "y"] if named == "both" else [named]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int)
    Peer(socket.socket(fileno=parser.parse_args().fd)).serve()
    sys.exit(0)
