"""The book of people: what it lets in, and that several processes may have it at once."""

import json
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bec_bluesky.errors import BadArgumentError, SettingsError
from bec_bluesky.people import ALL_SCOPES, ROLES, SINGLE_USER, PeopleBook


@pytest.fixture
def book(tmp_path: Path) -> PeopleBook:
    return PeopleBook(tmp_path / "people.json")


def test_a_key_lets_its_owner_do_what_the_role_allows_and_no_more_than_the_key(book: PeopleBook) -> None:
    book.add("ann", "user")
    ann = book.named("ann")
    assert ann is not None
    _, whole = book.make_key(ann, None, None, None)
    _, part = book.make_key(ann, ["read:status"], None, "display")
    found = book.who(whole)
    assert found is not None
    assert (found.name, found.group, found.scopes) == ("ann", "primary", ROLES["user"])
    less = book.who(part)
    assert less is not None
    assert less.scopes == {"read:status"}
    with pytest.raises(BadArgumentError, match="must be a subset"):
        book.make_key(less, ["write:execute"], None, None)
    with pytest.raises(BadArgumentError, match="must be a subset"):
        book.make_key(ann, ["write:scripts"], None, None)
    book.set("ann", role="observer")
    found = book.who(whole)
    assert found is not None
    assert found.scopes == ROLES["observer"]
    assert not any(scope.startswith("write:") for scope in found.scopes)


def test_what_is_revoked_expired_or_somebody_elses_opens_nothing(book: PeopleBook) -> None:
    book.add("ann", "user")
    book.add("bob", "staff")
    ann, bob = book.named("ann"), book.named("bob")
    assert ann is not None and bob is not None
    key, secret = book.make_key(ann, None, None, None)
    assert not book.revoke_key("bob", key.first_eight)
    assert book.who(secret) is not None
    assert book.revoke_key("ann", key.first_eight)
    assert book.who(secret) is None
    _, short = book.make_key(ann, None, 0.05, None)
    time.sleep(0.06)
    assert book.who(short) is None
    _, of_bob = book.make_key(bob, None, None, None)
    book.remove("bob")
    assert book.who(of_bob) is None
    for nothing in ("", "x", "a.b", of_bob[:8], ".", "é" * 50, "\udcff"):
        assert book.who(nothing) is None, nothing


def test_a_password_begins_a_session_whose_tokens_are_good_until_it_ends(book: PeopleBook) -> None:
    book.add("ann", "user", password="correct horse")
    book.add("bob", "user")
    assert book.log_in("ann", "correct hors") is None
    assert book.log_in("bob", "") is None
    assert book.log_in("nobody", "correct horse") is None
    session = book.log_in("ann", "correct horse")
    assert session is not None
    access, refresh = book.tokens(session)
    who = book.who(access)
    assert who is not None and who.name == "ann"
    assert book.who(refresh) is None, "a refresh token opens nothing itself"
    assert book.session_to_refresh(access) is None
    assert book.session_to_refresh(refresh) == session
    forged = access[:-1] + ("0" if access[-1] != "0" else "1")
    assert book.who(forged) is None
    assert book.end_session("ann", session.id)
    assert book.who(access) is None
    assert book.session_to_refresh(refresh) is None
    again = book.log_in("ann", "correct horse")
    assert again is not None
    book.set("ann", password="battery staple")
    assert book.who(book.tokens(again)[0]) is None, "a new password ends sessions"


def test_the_file_holds_no_secret_and_is_its_owners_alone(book: PeopleBook) -> None:
    book.add("ann", "admin", password="correct horse")
    ann = book.named("ann")
    assert ann is not None and ann.scopes == ALL_SCOPES and ann.group == "root"
    _, secret = book.make_key(ann, None, None, None)
    text = book.path.read_text()
    assert secret not in text and "correct horse" not in text
    assert stat.S_IMODE(book.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["", "-ann", "a b", "x" * 65, "ann\n", "UNAUTHENTICATED_SINGLE_USER", "../ann"])
def test_what_is_no_name_is_refused(book: PeopleBook, name: str) -> None:
    with pytest.raises(BadArgumentError, match="is no name"):
        book.add(name, "user")


def test_wrong_roles_short_passwords_and_taken_names_are_refused(book: PeopleBook) -> None:
    book.add("ann", "expert")
    assert book.users[0].role == "staff"
    with pytest.raises(BadArgumentError, match="already"):
        book.add("ann", "user")
    with pytest.raises(BadArgumentError, match="did you mean 'observer'"):
        book.add("bob", "obsever")
    with pytest.raises(BadArgumentError, match="8 to 1024"):
        book.add("bob", "user", password="short")
    with pytest.raises(BadArgumentError, match="nobody is called 'anna': did you mean 'ann'"):
        book.set("anna", role="user")


def test_a_spoiled_file_is_told_and_shuts_nobody_out_who_was_in(book: PeopleBook) -> None:
    book.add("ann", "user")
    ann = book.named("ann")
    assert ann is not None
    _, secret = book.make_key(ann, None, None, None)
    book.path.write_text('{"users": [')
    with pytest.raises(SettingsError, match="is no book of people"):
        book.load()
    assert book.who(secret) is not None
    with pytest.raises(SettingsError):
        book.add("bob", "user")
    assert book.path.read_text() == '{"users": ['


@pytest.mark.parametrize(
    ("before", "after", "line", "words"),
    [
        ('"role": "user"', '"role": "usr"', 6, "no role 'usr': did you mean 'user'"),
        ('"password": "scrypt', '"password": "my dog', 8, "no hash"),
        ('"note": ""', '"remark": ""', 4, "unknown field `remark`"),
        ('"group": "primary",', '"group": "primary"', 8, "JSON is malformed"),
        ('"group": "primary",', '"group": 5,', 7, "Expected `str`, got `int`"),
        ('"name": "ann"', '"name": "no name"', 5, "'no name' is no name"),
        ('"secret": "', '"secret": "z', 2, "not hexadecimal"),
    ],
)
def test_an_edit_by_hand_that_makes_no_sense_is_told_with_its_line(
    book: PeopleBook, before: str, after: str, line: int, words: str
) -> None:
    book.add("ann", "user", password="correct horse")
    text = book.path.read_text()
    assert before in text
    book.path.write_text(text.replace(before, after, 1))
    with pytest.raises(SettingsError, match=f"line {line}: .*{words}"):
        PeopleBook(book.path).load()
    assert [user.name for user in book.users] == ["ann"], "what was read before holds"
    assert book.who("wrong.token") is None
    with pytest.raises(SettingsError):
        book.log_in("ann", "correct horse")


def test_the_oldest_sessions_end_when_somebody_logs_in_again_and_again(
    book: PeopleBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bec_bluesky.people._book._MOST_SESSIONS", 2)
    book.add("ann", "user", password="correct horse")
    sessions = [book.log_in("ann", "correct horse") for _ in range(3)]
    assert book.sessions_of("ann") == sessions[1:]


def test_several_processes_change_it_and_each_sees_what_others_did(book: PeopleBook) -> None:
    code = (
        "import sys; from pathlib import Path; from bec_bluesky.people import PeopleBook\n"
        "book = PeopleBook(Path(sys.argv[1]))\n"
        "for number in range(10): book.add(f'{sys.argv[2]}{number}', 'user')"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(book.path), each]) for each in "abc"]
    for each in processes:
        assert each.wait(60.0) == 0
    assert len(book.users) == 30
    assert len(json.loads(book.path.read_text())["users"]) == 30


def test_who_has_the_systems_key_has_keys_of_its_own(book: PeopleBook) -> None:
    key, secret = book.make_key(SINGLE_USER, ["read:queue"], None, None)
    found = book.who(secret)
    assert found is not None
    assert (found.name, found.scopes) == (SINGLE_USER.name, {"read:queue"})
    assert book.keys_of(SINGLE_USER.name) == [key]
