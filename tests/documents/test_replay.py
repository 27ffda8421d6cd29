"""Runs once more through the callbacks of a profile, without a running system."""

import sys
from pathlib import Path
from typing import Any

import pytest

from bec_bluesky.documents import FileReady, replay
from bec_bluesky.settings import Settings, load
from tests.writers.nexus_harness import recorded

PROFILE = """
[[hosted]]
name = "nexus"
use = "writers.nexus:NexusWriter"
process = "files"
options = {{ directory = "{{files_dir}}", wait_for_results = 0, after = [
  {{ command = [{python!r}, "-c", "import sys; open(sys.argv[1], 'a').write('x')", {log!r}] }},
  {{ move_to = {archive!r} }},
] }}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A system whose run files are registered and moved to an archive."""
    folder = tmp_path / "profile_collection"
    folder.mkdir()
    text = PROFILE.format(python=sys.executable, log=str(tmp_path / "log"), archive=str(tmp_path / "archive"))
    (folder / "profile.toml").write_text(text)
    return load().with_(profile=tmp_path, data_dir=tmp_path / "data")


@pytest.mark.parametrize("outward", [False, True])
def test_what_follows_a_file_is_done_in_a_replay_only_if_asked(
    settings: Settings, tmp_path: Path, outward: bool
) -> None:
    made: list[Any] = []
    documents = [*recorded([1.0, 2.0]), *recorded([3.0], scan_id=2)]
    runs = replay(settings, documents, emit=made.append, directory=tmp_path / "files", outward=outward)
    assert len(runs) == 2
    files = [Path(each.path) for each in made if isinstance(each, FileReady)]
    archive, log = tmp_path / "archive", tmp_path / "log"
    if outward:
        assert len(files) == 4  # each announced again where it went to
        assert len(list(archive.iterdir())) == 2
        assert log.read_text() == "xx"
    else:
        assert len(files) == 2
        assert all(path.is_file() for path in files)
        assert not archive.exists()
        assert not log.exists()
