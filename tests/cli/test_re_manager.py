"""The options of `start-re-manager` start our system."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bluesky_queueserver import ZMQCommSendThreads

from bec_bluesky import plugins
from bec_bluesky.cli._re_manager import ignored, main, parser, settings_of
from bec_bluesky.settings import DEFAULT_PROFILE, Settings
from tests.live_system import DEVICES, until
from tests.ports import free_ports

PROGRAMS = Path(sys.executable).parent
START = "import sys; from bec_bluesky.cli._re_manager import main; sys.exit(main())"
PLANS = """
import bluesky.plans as bp
from ophyd.sim import det1

def my_count(num: int = 2):
    "Count a device of this file."
    yield from bp.count([det1], num=num)
"""
MODULE = """
import bluesky.plan_stubs as bps

def nap():
    "Nap."
    yield from bps.sleep(0.01)
"""
Read = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Gives the settings for options and environment variables."""
    monkeypatch.setenv("BEC_BLUESKY_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("BEC_BLUESKY_PROFILE", raising=False)

    def read(*arguments: str, **variables: str) -> Settings:
        return settings_of(parser().parse_args(arguments), variables)

    return read


def startup_of(settings: Settings) -> list[str]:
    return sorted(path.name for path in (plugins.collection(settings) / "startup").glob("*.py"))


def test_every_option_of_start_re_manager_is_accepted() -> None:
    theirs = subprocess.run([PROGRAMS / "start-re-manager", "--help"], capture_output=True, text=True, check=True)
    options = set(re.findall(r"^\s+(--[a-z][a-z0-9-]+)", theirs.stdout, re.M)) - {"--help"}
    assert len(options) > 30
    ours = {option for action in parser()._actions for option in action.option_strings}
    assert options <= ours


def test_addresses_come_from_options_then_from_the_peers_variables(read: Read) -> None:
    variables = {"QSERVER_ZMQ_CONTROL_ADDRESS_FOR_SERVER": "tcp://*:1", "QSERVER_ZMQ_ENCODING_FOR_SERVER": "msgpack"}
    settings = read("--zmq-info-addr", "tcp://*:2", "--redis-addr", "localhost:6379/3", "--verbose", **variables)
    assert (settings.qserver_control_address, settings.qserver_info_address) == ("tcp://*:1", "tcp://*:2")
    assert (settings.qserver_encoding, settings.redis_url) == ("msgpack", "redis://localhost:6379/3")
    assert settings.log_level == "DEBUG"
    assert read("--zmq-control-addr", "tcp://*:3", **variables).qserver_control_address == "tcp://*:3"
    assert read("--zmq-publish-console", "OFF").qserver_info_address == ""


def test_http_is_left_to_the_peers_server_unless_it_is_asked_for(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEC_BLUESKY_QSERVER_HTTP_PORT", raising=False)
    assert read().qserver_http_port == -1
    monkeypatch.setenv("BEC_BLUESKY_QSERVER_HTTP_PORT", "7001")
    assert read(**os.environ).qserver_http_port == 7001


def test_without_start_up_files_the_demo_of_the_peers_names_starts(read: Read) -> None:
    assert read().profile == DEFAULT_PROFILE / "profile_collection" / "queueserver_demo"


def test_a_directory_becomes_a_profile_with_its_devices(read: Read, tmp_path: Path) -> None:
    directory = tmp_path / "files"
    directory.mkdir()
    (directory / "00-plans.py").write_text(PLANS)
    (directory / "devices.yaml").write_text(DEVICES)
    settings = read("--startup-dir", str(directory))
    assert startup_of(settings) == ["00-plans.py"]
    assert (plugins.collection(settings) / "devices.yaml").read_text() == DEVICES
    assert [hosted.name for hosted in plugins.read_profile(settings).hosted] == ["bundler", "tiled"]
    assert settings.profile == read("--startup-dir", str(directory)).profile
    assert (directory / "00-plans.py").read_text() == PLANS


def test_the_startup_directory_of_a_profile_is_that_profile(read: Read, tmp_path: Path) -> None:
    profile = tmp_path / "instrument" / "profile_collection"
    (profile / "startup").mkdir(parents=True)
    (profile / "profile.toml").write_text('title = "Mine"')
    (profile / "devices.yaml").write_text(DEVICES)
    startup = str(profile / "startup")
    assert read("--startup-dir", startup).profile == tmp_path / "instrument"
    rules = tmp_path / "user_group_permissions.yaml"
    rules.write_text("user_groups: {root: {}, visitors: {}}")
    settings = read("--startup-dir", startup, "--user-group-permissions", str(tmp_path))
    assert plugins.read_rules(settings) == {"user_groups": {"root": {}, "visitors": {}}}
    assert plugins.read_profile(settings).title == "Mine"


def test_an_ipython_profile_is_found_where_ipython_has_it(read: Read, tmp_path: Path) -> None:
    startup = tmp_path / "profile_beam" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-plans.py").write_text(PLANS)
    settings = read("--startup-profile", "beam", IPYTHONDIR=str(tmp_path))
    assert startup_of(settings) == ["00-plans.py"]


def test_what_is_of_no_use_is_told_and_what_is_missing_refused(capsys: pytest.CaptureFixture[str], read: Read) -> None:
    assert ignored(parser().parse_args(["--keep-re", "--device-max-depth", "3"])) == ["--device-max-depth", "--keep-re"]
    assert ignored(parser().parse_args([])) == []
    assert main(["--startup-script", "nowhere.py"]) == 1
    assert "nowhere.py is not there" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("source", ["--startup-dir", "--startup-script", "--startup-module"])
def test_plans_of_each_source_run_and_sigterm_ends_everything(source: str, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "beam_plans.py").write_text(PLANS if source != "--startup-module" else MODULE)
    named = {"--startup-dir": str(files), "--startup-script": str(files / "beam_plans.py")}
    plan = "nap" if source == "--startup-module" else "my_count"
    control, info = (f"tcp://127.0.0.1:{port}" for port in free_ports(2))
    command = [sys.executable, "-c", START, "--zmq-control-addr", control, "--zmq-info-addr", info]
    process = subprocess.Popen(
        [*command, source, named.get(source, "beam_plans")],
        env=os.environ
        | {
            "BEC_BLUESKY_DATA_DIR": str(tmp_path / "data"),
            "BEC_BLUESKY_API_PORT": "0",
            "TILED_PROFILES": str(tmp_path / "tiled"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(files), os.environ.get("PYTHONPATH")])),
        },
        stdout=subprocess.DEVNULL,
    )
    client = ZMQCommSendThreads(zmq_server_address=control)

    def ask(method: str, **params: object) -> dict[str, Any]:
        answer: Any = client.send_message(method=method, params=params, raise_exceptions=False)
        return answer

    try:
        until(lambda: "manager_state" in ask("status"), "the manager")
        until(lambda: plan in str(ask("plans_existing").get("plans_existing")), plan)
        assert ask("environment_open")["success"]
        until(lambda: ask("status").get("worker_environment_exists"), "environment")
        item = {"item_type": "plan", "name": plan}
        added = ask("queue_item_add", item=item, user="somebody", user_group="primary")
        assert added["success"], added
        assert ask("queue_start")["success"]
        until(lambda: "'completed'" in str(ask("history_get")), "history")
    finally:
        client.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
