"""Plans without a traceback each: bluesky formats one whenever a stub is called, most of the time that a plan takes.

It serves one warning only, that a plan was called and never iterated; file and line say as much.
"""

import sys
from collections.abc import Callable
from typing import Any

from bluesky.utils import Plan

__all__ = ["make_plans_quick"]


def make_plans_quick() -> None:
    """Have bluesky's `@plan` remember where it was called, instead of the whole stack; for this process."""
    Plan.__init__ = _remember_line


def _remember_line(self: Any, f: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    self._iter = f(*args, **kwargs)
    caller = sys._getframe(2)  # the wrapper that `@plan` makes is between
    self._stack = [
        f'  File "{caller.f_code.co_filename}", line {caller.f_lineno}, in {caller.f_code.co_name}\n',
        f"RuntimeWarning: plan `{f.__name__}` was never iterated, did you mean to use `yield from`?",
    ]
