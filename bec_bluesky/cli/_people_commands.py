"""`people …`: who may use the beamline over HTTP, with which role, rules and keys; also when nothing runs."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML, YAMLError

from bec_bluesky.cli._options import choose, settings_of
from bec_bluesky.errors import BadArgumentError, SettingsError
from bec_bluesky.people import DEFAULT_RULES, PROVIDER, PeopleBook, Principal, UserGroups
from bec_bluesky.plugins import read_rules

__all__ = ["people_app"]

people_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Who may use the beamline over HTTP: users, roles, keys, rules."
)
key_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="API keys of users.")
rules_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Rules of user groups.")
people_app.add_typer(key_app, name="key")
people_app.add_typer(rules_app, name="rules")
Name = Annotated[str, typer.Argument(help="letters, digits and _ . @ + -")]
Role = Annotated[str, typer.Option(help="observer, user, staff or admin")]
Group = Annotated[str | None, typer.Option(help="user group whose rules hold; staff and admin: root, else primary")]
AskPassword = Annotated[bool, typer.Option("--password", help="ask for one (or read it from standard input)")]
_UNITS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}


people_app.callback()(choose)


def _book(context: typer.Context) -> PeopleBook:
    book = PeopleBook(settings_of(context).people)
    book.load()
    return book


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    return str(typer.prompt("password", hide_input=True, confirmation_prompt=True))


@people_app.command("list")
def list_(context: typer.Context) -> int:
    """Show everybody, with their roles, groups and numbers of keys."""
    book = _book(context)
    if not book.users:
        typer.echo("nobody: `bec-bluesky people add NAME --role user` adds somebody; who has api.key may do everything")
        return 0
    table = Table(box=None, pad_edge=False)
    for column in ("name", "role", "group", "password", "keys", "note"):
        table.add_column(column, overflow="fold")
    for user in book.users:
        keys = str(len(book.keys_of(user.name)))
        table.add_row(user.name, user.role, user.group, "yes" if user.password else "no", keys, user.note)
    Console(highlight=False, markup=False).print(table)
    return 0


@people_app.command()
def add(
    context: typer.Context,
    name: Name,
    role: Role = "user",
    group: Group = None,
    password: AskPassword = False,
    note: str = "",
) -> int:
    """Add somebody: an observer looks on, a user runs plans, staff also set up the beamline, an admin may do all."""
    book = _book(context)
    user = book.add(name, role, group=group, password=_password() if password else None, note=note)
    _warn_of_group(context, user.group)
    what = "logs in with a password" if password else f"needs a key: bec-bluesky people key new {name}"
    typer.echo(f"{user.name}: {user.role}, group {user.group}; {what}")
    return 0


@people_app.command("set")
def set_(
    context: typer.Context,
    name: Name,
    role: Annotated[str | None, typer.Option(help="observer, user, staff or admin")] = None,
    group: Group = None,
    password: AskPassword = False,
) -> int:
    """Give somebody another role, group or password; a new password ends their sessions, not their keys."""
    if role is None and group is None and not password:
        raise BadArgumentError("nothing to set: give --role, --group or --password")
    user = _book(context).set(name, role=role, group=group, password=_password() if password else None)
    _warn_of_group(context, user.group)
    typer.echo(f"{user.name}: {user.role}, group {user.group}")
    return 0


@people_app.command("rm")
def remove(context: typer.Context, name: Name) -> int:
    """Take somebody out: their keys and sessions open nothing any more, at once."""
    _book(context).remove(name)
    return 0


def _warn_of_group(context: typer.Context, group: str) -> None:
    """Say so if the instrument's rules do not have a group, or cannot be read."""
    try:
        groups = UserGroups(read_rules(settings_of(context)) or DEFAULT_RULES)
    except (SettingsError, BadArgumentError) as error:
        typer.echo(f"the instrument's rules cannot be used: {error}", err=True)
        return
    if group not in groups:
        text = f"the instrument's rules have no group {group!r}: until rules have it, it may stop what runs and no more"
        typer.echo(text, err=True)


def _known(book: PeopleBook, name: str) -> Principal:
    found = book.named(name)
    if found is None or found.provider != PROVIDER:
        raise BadArgumentError(f"nobody is called {name!r}: `bec-bluesky people add {name}` adds them")
    return found


@key_app.command("new")
def new_key(
    context: typer.Context,
    name: Name,
    lives: Annotated[str, typer.Option("--for", help="how long: 12h, 30d, 8w; ever")] = "30d",
    scope: Annotated[list[str] | None, typer.Option(help="only this one of the role's scopes; may be repeated")] = None,
    note: str = "",
) -> int:
    """Make a key for somebody and print its secret, which nobody can print again."""
    book = _book(context)
    key, secret = book.make_key(_known(book, name), scope, _seconds(lives), note or None)
    expires = "never" if key.expires is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(key.expires))
    typer.echo(f"key {key.first_eight} of {name}, expires {expires}; send it as `Authorization: ApiKey …`", err=True)
    typer.echo(secret)
    return 0


@key_app.command("list")
def list_keys(context: typer.Context, name: Annotated[str, typer.Argument()] = "") -> int:
    """Show keys: their beginnings, scopes and ends."""
    book = _book(context)
    table = Table(box=None, pad_edge=False)
    for column in ("key", "of", "expires", "scopes", "note"):
        table.add_column(column, overflow="fold")
    for owner in [name] if name else [user.name for user in book.users]:
        for key in book.keys_of(owner):
            expires = "never" if key.expires is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(key.expires))
            table.add_row(key.first_eight, owner, expires, " ".join(key.scopes), key.note or "")
    Console(highlight=False, markup=False).print(table)
    return 0


@key_app.command("revoke")
def revoke_key(context: typer.Context, name: Name, key: Annotated[str, typer.Argument(help="its beginning")]) -> int:
    """Take a key away, at once."""
    if not _book(context).revoke_key(name, key):
        raise BadArgumentError(f"{name} has no key that begins with {key!r}: `bec-bluesky people key list {name}`")
    return 0


@rules_app.command("show")
def show_rules(context: typer.Context) -> int:
    """Show the instrument's rules of user groups; rules that were set while it runs are over HTTP (`/api/v1/rules`)."""
    rules = read_rules(settings_of(context))
    if rules is None:
        typer.echo("# the instrument has none: these hold", err=True)
    YAML().dump(DEFAULT_RULES if rules is None else rules, sys.stdout)
    return 0


@rules_app.command("check")
def check_rules(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="of rules; none: the instrument's")] = None,
    group: Annotated[str, typer.Option(help="a group, to say what it may use")] = "",
    plan: Annotated[list[str] | None, typer.Option(help="whether this plan is open to the group")] = None,
) -> int:
    """Say what is wrong with rules, or what a group may use. Exit code 0 only if all is well, or open."""
    if file is None:
        rules = read_rules(settings_of(context)) or DEFAULT_RULES
    else:
        try:
            rules = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, YAMLError) as error:
            raise SettingsError(f"{file}: {error}") from None
    groups = UserGroups(rules)
    verdicts = {name: groups.is_plan_allowed(group or "primary", name) for name in plan or []}
    for name, is_open in verdicts.items():
        typer.echo(f"{name}: {'open' if is_open else 'closed'} to {group or 'primary'}")
    if not verdicts:
        typer.echo("the rules are well-formed")
    return 0 if all(verdicts.values()) else 1


def _seconds(text: str) -> float | None:
    if text in ("ever", "never"):
        return None
    number, unit = text[:-1], text[-1:]
    if not number.isdecimal() or unit not in _UNITS:
        raise BadArgumentError(f"{text!r} is no time to live: write it as 12h, 30d or 8w, or `ever`")
    return float(number) * _UNITS[unit]
