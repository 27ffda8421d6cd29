"""Plans without a traceback each."""

import sys
from collections.abc import Callable
from typing import Any

from bluesky.utils import Plan

from bec_bluesky.accelerations._acceleration import Acceleration, Replacement

__all__ = ["STACKS"]


def _remember_line(self: Any, f: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    self._iter = f(*args, **kwargs)
    caller = sys._getframe(2)  # the wrapper that `@plan` makes is between
    self._stack = [
        f'  File "{caller.f_code.co_filename}", line {caller.f_lineno}, in {caller.f_code.co_name}\n',
        f"RuntimeWarning: plan `{f.__name__}` was never iterated, did you mean to use `yield from`?",
    ]


STACKS = Acceleration(
    name="stacks",
    stock={"bluesky.utils:Plan": "022da5f8f618", "bluesky.utils:plan": "6816ebd66692"},
    in_process=lambda: [Replacement(Plan, "__init__", _remember_line)],
)
"""bluesky formats the whole stack whenever a plan stub is called, for one warning only: that a plan was called and
never iterated. File and line of the call say as much. For the whole process."""
