"""The private Redis: found, started, attached to, stopped; its data survive."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bec_bluesky import embedded
from bec_bluesky.errors import NoRedisError
from bec_bluesky.settings import Settings
from bec_bluesky.testing import private_system, settings_in


def test_a_second_start_attaches_to_the_living_server(tmp_path: Path) -> None:
    with private_system(tmp_path):
        again = embedded.find_or_start(settings_in(tmp_path))
        assert not again.started_here
        assert embedded.find(settings_in(tmp_path)) is not None
    assert embedded.find(settings_in(tmp_path)) is None


def test_data_survive_a_killed_server(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    first = embedded.find_or_start(settings, with_parent=True)
    assert first.pid is not None
    with redis.Redis.from_url(first.url) as client:
        client.set("kept", "1")
    os.kill(first.pid, signal.SIGKILL)
    os.waitpid(first.pid, 0)
    second = embedded.find_or_start(settings, with_parent=True)
    try:
        assert second.started_here
        with redis.Redis.from_url(second.url) as client:
            assert client.get("kept") == b"1"
    finally:
        assert embedded.stop(settings)


def test_a_server_that_loads_its_data_is_waited_for(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    first = embedded.find_or_start(settings, with_parent=True)
    assert first.pid is not None
    with redis.Redis.from_url(first.url) as client:
        for _ in range(30):
            with client.pipeline(transaction=False) as pipeline:
                for number in range(10_000):
                    pipeline.rpush("many", f"{number:0100}")
                pipeline.execute()
    os.kill(first.pid, signal.SIGKILL)
    os.waitpid(first.pid, 0)
    second = embedded.find_or_start(settings, with_parent=True)
    try:
        with redis.Redis.from_url(second.url, retry=Retry(NoBackoff(), 0)) as client:
            assert client.llen("many") == 300_000  # at once: no BusyLoadingError
    finally:
        assert embedded.stop(settings)


def test_many_simultaneous_starts_make_one_server(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from bec_bluesky import embedded, testing; "
        "s = embedded.find_or_start(testing.settings_in(Path(sys.argv[1]))); print(s.pid, s.started_here)"
    )
    starts = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    said = [process.communicate(timeout=60)[0].split() for process in starts]
    try:
        assert len({pid for pid, _ in said}) == 1
        assert [started for _, started in said].count("True") == 1
    finally:
        assert embedded.stop(settings_in(tmp_path))


def test_two_data_directories_do_not_collide(tmp_path: Path) -> None:
    with private_system(tmp_path / "one") as one, private_system(tmp_path / "two") as two:
        assert one.redis_url != two.redis_url


def test_a_long_data_directory_still_gets_a_socket(tmp_path: Path) -> None:
    with private_system(tmp_path / ("d" * 120)) as settings:
        assert embedded.ping(settings.redis_url or "")


def test_a_url_without_a_server_is_one_clear_sentence(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, redis_url="redis://127.0.0.1:1/0")
    with pytest.raises(NoRedisError, match=r"no Redis answers at redis://127.0.0.1:1/0 .*BEC_BLUESKY_REDIS_URL"):
        embedded.find_or_start(settings)


def test_a_data_directory_that_is_a_file_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(NoRedisError, match=r"cannot be written .*BEC_BLUESKY_DATA_DIR"):
        embedded.find_or_start(settings_in(tmp_path / "data"))


def test_a_server_that_may_evict_is_refused(redis_settings: Settings, tmp_path: Path) -> None:
    with private_system(tmp_path) as settings:
        with redis.Redis.from_url(settings.redis_url or "") as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(NoRedisError, match="noeviction"):
            embedded.ping(settings.redis_url or "")
