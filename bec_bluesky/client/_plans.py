"""Plans as functions: discoverable by TAB, `?` and `inspect.signature`, without importing any of them."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bec_bluesky.errors import UnknownPlanError
from bec_bluesky.messages.queue import Parameter, PlanInfo, QueueItem

__all__ = ["PlanCall", "Plans", "signature"]

Run = Callable[[str, tuple[Any, ...], dict[str, Any]], QueueItem]

_KINDS = {
    "positional_only": inspect.Parameter.POSITIONAL_ONLY,
    "positional_or_keyword": inspect.Parameter.POSITIONAL_OR_KEYWORD,
    "var_positional": inspect.Parameter.VAR_POSITIONAL,
    "keyword_only": inspect.Parameter.KEYWORD_ONLY,
    "var_keyword": inspect.Parameter.VAR_KEYWORD,
}


class _Written:
    """Shows as the text that it was given (defaults and annotations that are not imported here)."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def signature(info: PlanInfo) -> inspect.Signature:
    """Give the signature of a plan; defaults and annotations are texts that show as they were written."""
    return inspect.Signature([_parameter(each) for each in info.parameters], __validate_parameters__=False)


def _parameter(given: Parameter) -> inspect.Parameter:
    return inspect.Parameter(
        given.name,
        _KINDS[given.kind],
        default=_Written(given.default) if given.has_default else inspect.Parameter.empty,
        annotation=_Written(given.annotation) if given.annotation else inspect.Parameter.empty,
    )


class PlanCall:
    """One plan; calling it adds it to the queue, starts the queue and follows the run to its end."""

    def __init__(self, info: PlanInfo, run: Run) -> None:
        self._run = run
        self.info = info
        self.__name__ = self.__qualname__ = info.name
        self.__module__ = info.module
        self.__signature__ = signature(info)
        self.__doc__ = f"{info.name}{self.__signature__}\n\n{info.text or info.summary}"

    def __call__(self, *args: Any, **kwargs: Any) -> QueueItem:
        return self._run(self.info.name, args, kwargs)

    def __repr__(self) -> str:
        return f"<plan {self.info.name}{self.__signature__}: {self.info.summary}>"


class Plans:
    """The plans that the scan server offers, as attributes (`bl.run.scan(…)`)."""

    def __init__(self, infos: Callable[[], Mapping[str, PlanInfo]], run: Run) -> None:
        self._infos = infos
        self._run = run

    def __getattr__(self, name: str) -> PlanCall:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except UnknownPlanError as error:
            raise AttributeError(str(error)) from None

    def __getitem__(self, name: str) -> PlanCall:
        infos = self._infos()
        if name not in infos:
            raise UnknownPlanError(name, infos)
        return PlanCall(infos[name], self._run)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._infos()))

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._infos()]

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {info.summary}" for name, info in sorted(self._infos().items())) or "no plans"
