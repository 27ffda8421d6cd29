"""What the documentation shows can be typed in: commands with their options, Python, settings, devices, links."""

import ast
import importlib
import inspect
import re
import shlex
import textwrap
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from bec_bluesky import plugins
from bec_bluesky.cli._app import app
from bec_bluesky.client import Client
from bec_bluesky.device_server._device_file import DeviceSpec
from bec_bluesky.settings import load

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
INLINE = re.compile(r"`bec-bluesky ([^`]+)`")


def blocks(*languages: str) -> list[Any]:
    """Give the blocks of these languages as parameters, named by page and line."""
    found: list[Any] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in BLOCK.finditer(text):
            if block[1] in languages:
                line = text.count("\n", 0, block.start()) + 1
                found.append(pytest.param(block[2], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


def commands() -> Iterator[Any]:
    """Give the command lines of blocks, and those that stand in a sentence with an option or more."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in BLOCK.finditer(text):
            for line in block[2].splitlines() if block[1] in ("", "bash") else ():
                if line.startswith("bec-bluesky "):
                    yield pytest.param(line.removeprefix("bec-bluesky "), id=f"{page.stem}: {line}")
        for said in INLINE.findall(BLOCK.sub("", text)):
            yield pytest.param(" ".join(said.split()), id=f"{page.stem}: {said}")


@pytest.mark.parametrize("line", list(commands()))
def test_a_command_is_one_with_its_options(line: str) -> None:
    words = shlex.split(line, comments=True)
    command: Any = typer.main.get_command(app)
    context: Any = None
    while hasattr(command, "commands"):
        context = command.context_class(command, parent=context, info_name=command.name)
        _, words, _ = command.make_parser(context).parse_args(words)
        if not words:
            return  # a group alone, in a sentence
        assert words[0] in command.commands, f"no command {words[0]!r} among {sorted(command.commands)}"
        command, words = command.commands[words[0]], words[1:]
    if words or not any(each.required for each in command.params):  # in a sentence, a name may be enough
        command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize("text", blocks("python"))
def test_python_is_python_and_what_it_names_is_there(text: str) -> None:
    plugins.mount(load())
    tree = ast.parse("def shown():\n" + textwrap.indent(text, "    "))  # a plan's lines may yield
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.Attribute):
            _check_reached(node)


def _check_reached(node: ast.Attribute) -> Any:
    """Follow `bl.…` by the annotations of the client; gives a class, or None where that ends."""
    if isinstance(node.value, ast.Name) and node.value.id == "bl":
        owner: Any = Client
    elif isinstance(node.value, ast.Attribute):
        owner = _check_reached(node.value)
    else:
        return None
    if not inspect.isclass(owner) or hasattr(owner, "__getattr__"):
        return None
    is_own = f"self.{node.attr}" in inspect.getsource(owner)
    assert is_own or hasattr(owner, node.attr), f"{owner.__name__} has no {node.attr}"
    found = getattr(owner, node.attr, None)
    return typing.get_type_hints(found.fget).get("return") if isinstance(found, property) else None


@pytest.mark.parametrize("text", blocks("toml"))
def test_settings_are_taken(text: str, tmp_path: Path) -> None:
    if text.startswith("options ="):
        text = '[[hosted]]\nname = "x"\nuse = "writers.nexus:NexusWriter"\nprocess = "files"\n' + text
    (tmp_path / "profile_collection").mkdir()
    (tmp_path / "profile_collection" / "profile.toml").write_text(text)
    profile = plugins.read_profile(load(profile=tmp_path))
    assert profile.path.is_relative_to(tmp_path)
    for hosted in tomllib.loads(text).get("hosted", []):
        module, _, _ = hosted["use"].partition(":")
        if module != "callbacks.counter":  # written on that page
            parameters = inspect.signature(plugins.load_object(hosted["use"])).parameters
            assert hosted.get("options", {}).keys() <= parameters.keys()


@pytest.mark.parametrize("text", blocks("yaml"))
def test_devices_are_described_as_the_file_wants_them(text: str) -> None:
    content = yaml.safe_load(text)
    devices = content.get("devices", content if "burst" in content else {})
    for name, values in devices.items():
        assert DeviceSpec.model_validate({"class": "a:B"} | values), name


def test_links_lead_somewhere() -> None:
    lost = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in PAGES
        for link in LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in link and not link.startswith("#") and not (page.parent / link.partition("#")[0]).exists()
    ]
    assert not lost
