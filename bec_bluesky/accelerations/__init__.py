"""bluesky's RunEngine with less work for each message, from outside: no fork, no copy of it. `accelerate(RE)` applies
small changes, each of which could be a pull request to bluesky, can be switched off by its name, and keeps off by
itself where the installed bluesky is not the one that it was written for. Documents, errors and the order of things
are those of the stock RunEngine; bluesky's own tests say so too (`docs/decisions`)."""

from bec_bluesky.accelerations._accelerate import ALL, accelerate, chosen, withdrawn

__all__ = ["ALL", "accelerate", "chosen", "withdrawn"]
