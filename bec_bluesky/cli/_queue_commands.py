"""`queue …`: look at the queue, change it, and act on the running plan."""

import contextlib
import shlex
from collections.abc import Iterator
from typing import Annotated

import typer

from bec_bluesky.cli._arguments import parse_arguments, parse_metadata
from bec_bluesky.cli._history_commands import history
from bec_bluesky.cli._options import Beamline, Chosen, DataDirectory, RedisUrl, choose, connected, settings_of
from bec_bluesky.client import Client, QueueDoor, call_text
from bec_bluesky.errors import BadArgumentError

__all__ = ["queue_app"]

queue_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at the queue, change it, act on the running plan."
)
_PLAN = {"ignore_unknown_options": True, "allow_interspersed_args": False}
ItemId = Annotated[str, typer.Argument(help="or the beginning of it")]
TheItem = Annotated[str, typer.Option("--item", help="id of the item that is meant; if another one runs, do nothing")]
Reason = Annotated[str, typer.Option("--reason", help="goes into the run's stop document")]


@queue_app.callback()
def choose_queue(
    context: typer.Context,
    data: DataDirectory = None,
    beamline: Beamline = None,
    redis: RedisUrl = None,
    queue: Annotated[str, typer.Option("--queue", "-q", help="one that `profile.toml` declares; none: main")] = "",
) -> None:
    """Choose the system, and the queue."""
    choose(context, data, beamline, redis)
    context.obj = Chosen(context.obj.given, queue=queue)


def _name(context: typer.Context) -> str:
    """Give the name of the queue that is meant; empty: the main one."""
    chosen = context.find_object(Chosen)
    return "" if chosen is None else chosen.queue


@contextlib.contextmanager
def _queue(context: typer.Context) -> Iterator[QueueDoor]:
    """Give the queue that is meant, of a connected client."""
    with _client(context) as client:
        yield client.queue(_name(context))


def _client(context: typer.Context) -> Client:
    return connected(settings_of(context))


@queue_app.command("list")
def list_(context: typer.Context) -> int:
    """Show what runs and what waits."""
    with _queue(context) as door:
        queue, status = door.now(), door.status
    name = f"queue {_name(context)}" if len(status.queues) > 1 and _name(context) else "queue"
    typer.echo(f"{name} {status.queue_state}, run {status.run_state}")
    if status.waits_for:
        typer.echo(f"waits: {status.waits_for}")
    if status.suspended:
        typer.echo(f"suspended: {status.suspended}")
    if queue.running is not None:
        typer.echo(f"running  {queue.running.item_id[:8]}  {call_text(queue.running)}  by {queue.running.user}")
    for number, item in enumerate(queue.waiting):
        held = f"  held: {item.held}" if item.held else ""
        typer.echo(f"{number:>7}  {item.item_id[:8]}  {call_text(item)}  by {item.user}{held}")
    if queue.running is None and not queue.waiting:
        typer.echo("nothing waits")
    return 0


@queue_app.command(context_settings=_PLAN)
def add(
    context: typer.Context,
    plan: str,
    arguments: Annotated[list[str] | None, typer.Argument(help="[det] samx -5 5 num=11")] = None,
    front: Annotated[bool, typer.Option("--front", help="at the front of the queue")] = False,
    position: Annotated[int | None, typer.Option("--position", help="0 is the front, -1 the back")] = None,
    before: Annotated[str, typer.Option("--before", help="before this item")] = "",
    after: Annotated[str, typer.Option("--after", help="after this item")] = "",
    title: Annotated[str, typer.Option("--title")] = "",
    sample: Annotated[str, typer.Option("--sample", help="goes into the run's start document")] = "",
    note: Annotated[str, typer.Option("--note")] = "",
    meta: Annotated[list[str] | None, typer.Option("--meta", help="key=value for the run's metadata")] = None,
    goes_back: Annotated[bool, typer.Option("--goes-back", help="to the front again if it fails")] = False,
) -> int:
    """Put a plan into the queue; nothing starts."""
    args, kwargs = parse_arguments(arguments or [])
    place = {"position": 0 if front else position, "before": before, "after": after}
    said = {"title": title, "sample": sample, "note": note, "metadata": parse_metadata(meta or [])}
    with _queue(context) as queue:
        item = queue.put(plan, args, kwargs, **place, **said, goes_back=goes_back)
    for warning in item.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(item.item_id)
    return 0


@queue_app.command(context_settings=_PLAN)
def execute(
    context: typer.Context,
    plan: str,
    arguments: Annotated[list[str] | None, typer.Argument(help="[det] samx -5 5 num=11")] = None,
) -> int:
    """Run a plan at once, past the queue, which must be stopped."""
    args, kwargs = parse_arguments(arguments or [])
    with _queue(context) as queue:
        typer.echo(queue.execute(plan, *args, **kwargs).item_id)
    return 0


@queue_app.command("add-all")
def add_all(
    context: typer.Context,
    file: Annotated[typer.FileText, typer.Argument(help="one `plan arguments` a line; - is what is typed or piped")],
    front: Annotated[bool, typer.Option("--front", help="at the front of the queue")] = False,
) -> int:
    """Put several plans into the queue, together and in their order, all or none; nothing starts."""
    lines = [words for line in file if (words := shlex.split(line, comments=True))]
    calls = [(plan, *parse_arguments(words)) for plan, *words in lines]
    with _queue(context) as queue:
        for item in queue.add_all(calls, position=0 if front else None):
            typer.echo(item.item_id)
    return 0


@queue_app.command(context_settings=_PLAN)
def again(
    context: typer.Context,
    item_id: ItemId,
    changes: Annotated[list[str] | None, typer.Argument(help="num=21")] = None,
) -> int:
    """Put an item into the queue once more, also one that has ended, with other arguments by name; nothing starts."""
    args, kwargs = parse_arguments(changes or [])
    if args:
        raise BadArgumentError(f"{args[0]!r} has no name: write name=value for what changes")
    with _queue(context) as queue:
        typer.echo(queue.again(item_id, **kwargs).item_id)
    return 0


@queue_app.command("stop-here")
def stop_here(context: typer.Context) -> int:
    """Put an instruction at the back at which the queue stops."""
    with _queue(context) as queue:
        typer.echo(queue.stop_here().item_id)
    return 0


@queue_app.command()
def wait(
    context: typer.Context,
    seconds: Annotated[float | None, typer.Argument()] = None,
    device: Annotated[str | None, typer.Option("--device", help="wait for a condition on it instead")] = None,
    above: Annotated[float | None, typer.Option("--above")] = None,
    below: Annotated[float | None, typer.Option("--below")] = None,
    equals: Annotated[str | None, typer.Option("--equals", help="a number or a text")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", help="seconds after which the wait fails")] = None,
) -> int:
    """Put an instruction at the back at which the queue waits."""
    value = None if equals is None else parse_arguments([equals])[0][0]
    with _queue(context) as queue:
        item = queue.wait_here(seconds, device=device, above=above, below=below, equals=value, timeout=timeout)
    typer.echo(item.item_id)
    return 0


@queue_app.command()
def rm(context: typer.Context, item_ids: Annotated[list[str], typer.Argument(help="or the beginnings of them")]) -> int:
    """Take waiting items out, all or none."""
    with _queue(context) as queue:
        queue.remove(*item_ids)
    return 0


@queue_app.command()
def mv(
    context: typer.Context,
    item_id: ItemId,
    position: Annotated[int | None, typer.Argument(help="0 is the front; none is the back")] = None,
    before: Annotated[str, typer.Option("--before", help="before this item")] = "",
    after: Annotated[str, typer.Option("--after", help="after this item")] = "",
) -> int:
    """Give a waiting item another place."""
    with _queue(context) as queue:
        queue.move(item_id, position, before=before, after=after)
    return 0


@queue_app.command(context_settings=_PLAN)
def edit(
    context: typer.Context,
    item_id: ItemId,
    arguments: Annotated[list[str], typer.Argument(help="num=21, or all positional ones anew")],
) -> int:
    """Give a waiting item other arguments."""
    args, kwargs = parse_arguments(arguments)
    with _queue(context) as queue:
        typer.echo(call_text(queue.edit(item_id, *args, **kwargs)))
    return 0


@queue_app.command()
def hold(context: typer.Context, item_id: ItemId, reason: Annotated[str, typer.Option("--reason")] = "") -> int:
    """Have the queue stop in front of an item until it is released."""
    with _queue(context) as queue:
        queue.hold(item_id, reason)
    return 0


@queue_app.command()
def mode(
    context: typer.Context,
    loop: Annotated[bool | None, typer.Option("--loop/--no-loop", help="what ended well goes to the back")] = None,
    ignore_failures: Annotated[
        bool | None, typer.Option("--ignore-failures/--no-ignore-failures", help="go on after an item that failed")
    ] = None,
    autostart: Annotated[
        bool | None, typer.Option("--autostart/--no-autostart", help="start by itself when there is something to run")
    ] = None,
) -> int:
    """Say how the queue goes on, and show it."""
    with _queue(context) as queue:
        queue.mode(loop=loop, ignore_failures=ignore_failures, autostart=autostart)
        status = queue.status
    for name, is_on in [
        ("loop", status.loop),
        ("ignore failures", status.ignore_failures),
        ("autostart", status.autostart),
    ]:
        typer.echo(f"{name}: {'on' if is_on else 'off'}")
    return 0


@queue_app.command()
def clear(context: typer.Context) -> int:
    """Take all waiting items out."""
    with _queue(context) as queue:
        queue.clear()
    return 0


@queue_app.command()
def start(context: typer.Context) -> int:
    """Run the waiting items one after the other."""
    with _queue(context) as queue:
        queue.start()
    return 0


@queue_app.command()
def stop(context: typer.Context, cancel: Annotated[bool, typer.Option("--cancel", help="take it back")] = False) -> int:
    """Stop the queue after the running plan (`finish` and `skip` end the plan itself)."""
    with _queue(context) as queue:
        queue.stop(cancel=cancel)
    return 0


queue_app.command()(history)


@queue_app.command()
def release(context: typer.Context, item_id: ItemId) -> int:
    """Let a held item run when its turn comes."""
    with _queue(context) as queue:
        queue.release(item_id)
    return 0


@queue_app.command()
def pause(
    context: typer.Context, now: Annotated[bool, typer.Option("--now", help="do not wait for the point")] = False
) -> int:
    """Pause the running plan after the point under way."""
    with _client(context) as client:
        client.pause(now=now, queue=_name(context))
    return 0


@queue_app.command()
def resume(context: typer.Context) -> int:
    """Go on after a pause."""
    with _client(context) as client:
        client.resume(queue=_name(context))
    return 0


@queue_app.command()
def bypass(context: typer.Context, reason: Reason = "", item: TheItem = "") -> int:
    """Have a suspended plan go on in spite of what suspends it; that suspender is out for this item."""
    with _client(context) as client:
        client.bypass(reason, item_id=item, queue=_name(context))
    return 0


@queue_app.command()
def finish(
    context: typer.Context,
    reason: Reason = "",
    now: Annotated[bool, typer.Option("--now", help="do not wait for the point (bluesky's stop)")] = False,
    item: TheItem = "",
) -> int:
    """End the running plan in order after the point under way; it counts as a success."""
    with _client(context) as client:
        (client.stop if now else client.finish)(reason, item_id=item, queue=_name(context))
    return 0


@queue_app.command()
def skip(context: typer.Context, reason: Reason = "", item: TheItem = "") -> int:
    """End the running plan now, in order; the queue goes on with the next item."""
    with _client(context) as client:
        client.skip(reason, item_id=item, queue=_name(context))
    return 0


@queue_app.command()
def abort(context: typer.Context, reason: Reason = "", item: TheItem = "") -> int:
    """End the running plan with clean-up; it counts as aborted."""
    with _client(context) as client:
        client.abort(reason, item_id=item, queue=_name(context))
    return 0


@queue_app.command()
def halt(context: typer.Context, reason: Reason = "", item: TheItem = "") -> int:
    """End the running plan at once, without clean-up."""
    with _client(context) as client:
        client.halt(reason, item_id=item, queue=_name(context))
    return 0
