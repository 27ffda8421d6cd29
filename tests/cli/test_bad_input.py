"""What bad input gets: one sentence on stderr, an exit code that is not 0, nothing started."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bec_bluesky.cli import main


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run the command line in this process; give the exit code and what is on stderr."""
    code = main(list(arguments))
    return code, capsys.readouterr().err


def is_one_sentence(text: str) -> bool:
    return text.count("\n") == 1 and text.startswith("bec-bluesky: ") and "Traceback" not in text


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = call(capsys, "unn")
    assert code == 2
    assert is_one_sentence(said)
    assert "'unn'" in said


def test_run_without_a_system_says_how_to_start_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, said = call(capsys, "run", "--data", str(tmp_path), "count", "[det]")
    assert code == 1
    assert is_one_sentence(said)
    assert "bec-bluesky up" in said
    assert str(tmp_path) in said


def test_a_redis_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for command in (["status"], ["run", "count", "[det]"], ["queue", "list"], ["up"]):
        code, said = call(capsys, "--redis", "redis://127.0.0.1:1", "--data", str(tmp_path), *command)
        assert code == 1, command
        assert is_one_sentence(said), command
        assert "redis://127.0.0.1:1" in said


def test_an_argument_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, said = call(capsys, "run", "--data", str(tmp_path), "scan", "[det", "samx", "-5", "5")
    assert code == 1
    assert is_one_sentence(said)
    assert "'[det'" in said


def test_a_beamline_that_is_no_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = call(capsys, "status", "--beamline", "not a name")
    assert code == 1
    assert is_one_sentence(said)
    assert "BEC_BLUESKY_BEAMLINE" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_up_refuses_a_data_directory_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    code, said = call(capsys, "up", "--data", str(tmp_path / "data"))
    tmp_path.chmod(0o700)
    assert code == 1
    assert is_one_sentence(said)
    assert "cannot be written" in said


def test_up_refuses_a_data_directory_that_is_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    code, said = call(capsys, "up", "--data", str(tmp_path / "data"))
    assert code == 1
    assert is_one_sentence(said)
    assert str(tmp_path / "data") in said


def test_up_refuses_a_profile_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, said = call(capsys, "up", "--data", str(tmp_path), "--profile", str(tmp_path / "nowhere"))
    assert code == 1
    assert is_one_sentence(said)
    assert "nowhere" in said
    assert not (tmp_path / "redis").exists()


def test_up_refuses_a_profile_with_a_mistake_naming_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "profile.toml").write_text("titel = 'x'\n")
    code, said = call(capsys, "up", "--data", str(tmp_path / "data"), "--profile", str(tmp_path))
    assert code == 1
    assert is_one_sentence(said)
    assert "'titel'" in said
    assert "'title'" in said
    assert not (tmp_path / "data" / "redis").exists()


def test_up_refuses_a_port_in_use_naming_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("BEC_BLUESKY_API_PORT", str(port))
        code, said = call(capsys, "up", "--data", str(tmp_path))
    assert code == 1
    assert is_one_sentence(said)
    assert str(port) in said
    assert "BEC_BLUESKY_API_PORT" in said
    assert not (tmp_path / "redis").exists()


def test_up_refuses_a_companion_port_in_use_naming_the_profile(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEC_BLUESKY_API_PORT", "0")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (tmp_path / "profile.toml").write_text(
            f'[environment]\nEPICS_CA_SERVER_PORT = "{port}"\n[companions]\nioc = ["{{python}}", "-c", ""]\n'
        )
        code, said = call(capsys, "up", "--data", str(tmp_path / "data"), "--profile", str(tmp_path))
    assert code == 1
    assert is_one_sentence(said)
    assert str(port) in said
    assert "profile.toml" in said
    assert not (tmp_path / "data" / "redis").exists()


def test_a_traceback_is_shown_only_when_asked_for(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bec_bluesky", "run", "--data", str(tmp_path), "count", "[det]"]
    plain = subprocess.run(command, capture_output=True, text=True, check=False)
    assert plain.returncode == 1
    assert "Traceback" not in plain.stderr
    command.insert(3, "--debug")
    with_traceback = subprocess.run(command, capture_output=True, text=True, check=False)
    assert with_traceback.returncode == 1
    assert "Traceback" in with_traceback.stderr


def test_down_where_nothing_runs_is_no_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["down", "--data", str(tmp_path)]) == 0
    assert "nothing runs" in capsys.readouterr().out
