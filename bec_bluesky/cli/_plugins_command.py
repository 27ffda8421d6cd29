"""`plugins`: what the profile offers."""

import inspect

import typer

from bec_bluesky import embedded, plugins
from bec_bluesky.cli._options import connected
from bec_bluesky.errors import BecBlueskyError
from bec_bluesky.messages.queue import PlanInfo
from bec_bluesky.settings import Settings

__all__ = ["show"]


def show(settings: Settings) -> int:
    """List plans, devices, callbacks, writers and what is hosted; 1 if something is broken."""
    plugins.mount(settings)
    profile = plugins.read_profile(settings)
    typer.echo(f"profile {profile.path}" + (f" ({profile.title})" if profile.title else ""))
    problems: list[plugins.Problem] = []
    for kind in plugins.KINDS:
        modules, broken = plugins.import_all(kind)
        problems += broken
        typer.echo(f"\n{kind}")
        for module in modules:
            typer.echo(f"  {module.__name__}: {_offered(kind, module)}")
        for problem in broken:
            typer.echo(f"  {problem.module}: BROKEN, {problem.error}")
    typer.echo("\nhosted")
    for hosted in profile.hosted:
        needed = "required" if hosted.required else "optional"
        typer.echo(f"  {hosted.name}: {hosted.use} in documents-{hosted.process}, {needed}")
    for name, command in profile.companions.items():
        typer.echo(f"  {name}: {' '.join(command)}")
    plans = _running_plans(settings)
    if plans:
        typer.echo(f"\nplans of the running beamline {settings.beamline!r}")
        for name, info in sorted(plans.items()):
            typer.echo(f"  {name}: {info.summary}")
    return 1 if problems else 0


def _offered(kind: str, module: object) -> str:
    """Name what a module defines or lists for others; of plans, those that may be asked for."""
    listed = getattr(module, "__all__", None)
    if listed is None:
        name = getattr(module, "__name__", "")
        listed = [
            key
            for key, value in vars(module).items()
            if not key.startswith("_") and callable(value) and inspect.getmodule(value) is module and name
        ]
    if kind == "plans":  # not what plans are made of: `per_step` functions, stubs
        listed = [name for name in listed if inspect.isgeneratorfunction(inspect.unwrap(getattr(module, name)))]
        return ", ".join(sorted(listed)) or "no plans, only parts of them"
    return ", ".join(sorted(listed)) or "nothing"


def _running_plans(settings: Settings) -> dict[str, PlanInfo]:
    try:
        if embedded.find(settings) is None:
            return {}
        with connected(settings) as client:
            return client.plans
    except BecBlueskyError:
        return {}
