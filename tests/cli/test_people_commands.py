"""`bec-bluesky people`: users, keys and rules from the command line, while nothing runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bec_bluesky.people import PeopleBook


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


def people(directory: Path, *arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bec_bluesky", "people", "--data", str(directory), *arguments]
    return subprocess.run(command, input=said, env=os.environ, capture_output=True, text=True, timeout=60, check=False)


def test_people_get_roles_passwords_and_keys_and_lose_them(directory: Path) -> None:
    assert "nobody" in people(directory, "list").stdout
    added = people(directory, "add", "ann", "--role", "staff", "--password", said="correct horse\n")
    assert (added.returncode, added.stdout) == (0, "ann: staff, group root; logs in with a password\n")
    added = people(directory, "add", "bob", "--group", "chemists")
    assert added.returncode == 0 and "rules have no group 'chemists'" in added.stderr
    made = people(directory, "key", "new", "bob", "--for", "2d", "--scope", "read:status", "--note", "display")
    secret = made.stdout.strip()
    book = PeopleBook(directory / "people.json")
    found = book.who(secret)
    assert found is not None
    assert (found.name, found.group, found.scopes) == ("bob", "chemists", {"read:status"})
    session = book.log_in("ann", "correct horse")
    assert session is not None
    assert secret[:8] in people(directory, "key", "list").stdout
    listed = " ".join(people(directory, "list").stdout.split())
    assert "ann staff root yes 0" in listed and "bob user chemists no 1" in listed
    assert people(directory, "key", "revoke", "bob", secret[:8]).returncode == 0
    assert book.who(secret) is None
    assert "observer, group primary" in people(directory, "set", "ann", "--role", "observer").stdout
    assert people(directory, "rm", "ann").returncode == 0
    assert book.log_in("ann", "correct horse") is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "bob", "--role", "obsever"), "did you mean 'observer'"),
        (("add", "a b"), "is no name"),
        (("rm", "nobody"), "nobody is called"),
        (("set", "nobody"), "nothing to set"),
        (("key", "new", "nobody"), "people add nobody"),
        (("key", "revoke", "nobody", "12345678"), "has no key"),
        (("rules", "check", "nosuch.yaml"), "nosuch.yaml"),
    ],
)
def test_a_mistake_is_one_sentence(directory: Path, arguments: tuple[str, ...], words: str) -> None:
    done = people(directory, *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (directory / "people.json").exists()


def test_rules_are_checked_and_say_what_is_open(directory: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("user_groups:\n  root: {allowed_plans: [null]}\n  chemists: {allowed_plans: [':^count']}\n")
    assert people(directory, "rules", "check", str(rules)).stdout == "the rules are well-formed\n"
    verdict = people(
        directory, "rules", "check", str(rules), "--group", "chemists", "--plan", "count", "--plan", "scan"
    )
    assert (verdict.returncode, verdict.stdout) == (1, "count: open to chemists\nscan: closed to chemists\n")
    rules.write_text("user_groups:\n  root: {allowed_plan: [null]}\n  primary: {}\n")
    wrong = people(directory, "rules", "check", str(rules))
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert "allowed_plan" in wrong.stderr
