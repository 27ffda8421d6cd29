"""TAB in IPython: it looks into objects of known classes only, lest a look has effects."""

import contextlib
import importlib
import sys
from typing import Any

__all__ = ["allow_completion"]


def allow_completion(*classes: type) -> None:
    """Let a running IPython evaluate attributes of such objects for TAB; elsewhere nothing is done.

    Its policy "limited" passes over classes that have properties or a `__getattr__`, as devices do for their parts.
    """
    if "IPython" not in sys.modules:
        return
    guarded: Any = None
    with contextlib.suppress(ImportError):  # an older one, which evaluates anyway
        guarded = importlib.import_module("IPython.core.guarded_eval")  # IPython itself imports it at the first TAB
    policy = getattr(guarded, "EVALUATION_POLICIES", {}).get("limited")
    allowed = getattr(policy, "allowed_getattr", None)
    if isinstance(allowed, set):
        allowed |= set(classes)
