"""The plans that may be asked for, as they were described last; and having them imported anew."""

from collections.abc import Callable, Mapping

from bec_bluesky.client._plans import signature
from bec_bluesky.messages.around_queue import PlansReloaded, ReloadPlans
from bec_bluesky.messages.queue import PlanInfo

__all__ = ["OfferedPlans"]


class OfferedPlans(dict[str, PlanInfo]):
    """Descriptions of plans by name; print it for a list."""

    def __init__(self, infos: Mapping[str, PlanInfo], ask: Callable[[ReloadPlans], PlansReloaded]) -> None:
        super().__init__(sorted(infos.items()))
        self._ask = ask

    def reload(self, module: str = "") -> PlansReloaded:
        """Import a module of plans (`plans.scans`), or execute a start-up file (`10-plans.py`), anew; none: all.

        What runs goes on as it began. Gives what changed, and why what could not be imported was left as it was.
        """
        return self._ask(ReloadPlans(module=module))

    def __repr__(self) -> str:
        return "\n".join(f"{name}{signature(info)}: {info.summary}" for name, info in self.items()) or "no plans"
