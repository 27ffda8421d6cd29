"""Hosts callbacks and writers: feeds them from the documents on Redis and publishes what they make."""

import asyncio
import contextlib
import inspect
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from bec_bluesky import plugins
from bec_bluesky.documents._callback import Emit, RunCallback
from bec_bluesky.documents._feed import Feed
from bec_bluesky.documents._file_list import FileList
from bec_bluesky.documents._lost import system_id
from bec_bluesky.documents._publish import Publisher
from bec_bluesky.errors import PlugInError, SettingsError, choices
from bec_bluesky.log import logger
from bec_bluesky.plugins import Hosted
from bec_bluesky.service import Service
from bec_bluesky.settings import Settings

__all__ = ["DocumentService", "make_callback", "option_words", "replaced"]

_log = logger(__name__)


class DocumentService(Service):
    """Hosts the callbacks and writers that `profile.toml` gives to one process."""

    name: ClassVar[str] = "documents"
    grace: ClassVar[float] = 20.0

    def __init__(self, settings: Settings, *, process: str) -> None:
        super().__init__(settings, name=f"documents-{process}")
        self._process = process
        self._feeds: list[Feed] = []
        self._notes: dict[str, str] = {}

    async def start(self) -> None:
        """Make every hosted callback and feed each on its own; one that cannot be made is told and left out."""
        plugins.mount(self.settings)
        profile = plugins.read_profile(self.settings)
        mine = [hosted for hosted in profile.hosted if hosted.process == self._process]
        if not mine:
            words = {hosted.process for hosted in profile.hosted}
            raise SettingsError(
                f"{profile.path} has no [[hosted]] for {self._process!r}: {choices(self._process, words)}"
            )
        self.facts = {"hosts": {hosted.name: hosted.use for hosted in mine}}
        for hosted in mine:
            self.spawn(self._host(hosted, profile.required), hosted.name)

    async def finish(self) -> None:
        """Let every callback take what is there and close."""
        await asyncio.gather(*(feed.finish() for feed in self._feeds))

    async def _host(self, hosted: Hosted, required: frozenset[str]) -> None:
        """Feed one callback for ever; what goes wrong with it is its own affair."""
        publisher = Publisher(self.bus, asyncio.get_running_loop(), self.alarm)
        try:
            options = replaced(hosted.options, option_words(self.settings))
            emit = FileList(self.settings.file_list).noting(publisher.emit)
            callback = await asyncio.to_thread(make_callback, hosted, options, emit)
            callback.owner = f"{await asyncio.to_thread(system_id, self.settings)}:{hosted.name}"
        except (PlugInError, SettingsError, OSError) as error:
            self._tell(hosted.name, f"{hosted.name}: {error}")
            await self.alarm(f"{hosted.name}: {error}", level="error")
            return
        tell = partial(self._tell_given_up, hosted.name)
        feed = Feed(hosted.name, callback, self.bus, publisher, required=required, alarm=self.alarm, tell_given_up=tell)
        self._feeds.append(feed)
        await feed.run()

    def _tell_given_up(self, name: str, number: int) -> None:
        runs = "one run, whose documents are" if number == 1 else f"{number} runs, whose documents are"
        remedy = f"kept: mend the cause (`bec-bluesky alarms`), then `bec-bluesky restart {self.service_name}`"
        self._tell(name, f"{name} gave up on {runs} {remedy}" if number else "")

    def _tell(self, name: str, note: str) -> None:
        """Say what is wrong with one of the hosted callbacks; nothing: all is well again."""
        self._notes[name] = note
        self.note = "; ".join(note for note in self._notes.values() if note)


def option_words(settings: Settings, *, files: Path | None = None) -> dict[str, str]:
    """Give what stands in options for directories; `files` takes the place of the settings' own."""
    return {
        "data_dir": str(settings.data_dir),
        "files_dir": str(files or settings.files_dir),
        "profile_dir": str(plugins.collection(settings)),
    }


def replaced(value: Any, words: dict[str, str]) -> Any:
    """Replace `{data_dir}`, `{files_dir}` and `{profile_dir}` in every text of an option."""
    if isinstance(value, str):
        for word, text in words.items():
            value = value.replace(f"{{{word}}}", text)
        return value
    if isinstance(value, dict):
        return {key: replaced(each, words) for key, each in value.items()}
    if isinstance(value, list):
        return [replaced(each, words) for each in value]
    return value


def make_callback(hosted: Hosted, options: dict[str, Any], emit: Emit) -> RunCallback:
    """Import and construct a hosted callback; raises PlugInError or SettingsError, naming the entry and the remedy."""
    made = plugins.load_object(hosted.use)
    parameters = inspect.signature(made, eval_str=True).parameters
    for option in options:
        if option not in parameters:
            known = [name for name in parameters if name != "emit"]
            raise SettingsError(f"{hosted.use} has no option {option!r}: {choices(option, known)}")
    typed = {name: _typed(hosted.use, parameters[name], value) for name, value in options.items()}
    try:
        callback = made(**typed, emit=emit)
    except Exception as error:  # here a process meets a plug-in
        raise PlugInError(f"{hosted.use} could not be made: {type(error).__name__}: {error}") from error
    if not isinstance(callback, RunCallback):
        with contextlib.suppress(AttributeError):
            callback.close()
        raise PlugInError(f"{hosted.use} is no bec_bluesky.documents.RunCallback: subclass it")
    return callback


def _typed(use: str, parameter: inspect.Parameter, value: Any) -> Any:
    """Give an option as its parameter is annotated; raises SettingsError."""
    if parameter.annotation is inspect.Parameter.empty:
        return value
    try:
        found = TypeAdapter(parameter.annotation, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(
            value
        )
        return list(found) if isinstance(found, Iterator) else found
    except PydanticUserError:  # an annotation of the plug-in's own, which it judges itself
        return value
    except ValidationError as error:
        (first, *_) = error.errors()
        where = "".join(f"[{each}]" for each in first["loc"] if isinstance(each, int))
        raise SettingsError(f"{use}: option {parameter.name}{where} = {value!r}: {first['msg']}") from None
