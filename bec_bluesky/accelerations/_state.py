"""The RunEngine's state, remembered."""

import inspect
from typing import Any

from bluesky._vendor.super_state_machine.extras import PropertyMachine
from bluesky.run_engine import LoggingPropertyMachine

from bec_bluesky.accelerations._acceleration import Acceleration, extend

__all__ = ["STATE"]

_KEY = "_remembered_state"


class _Forgetting(PropertyMachine):
    """Forgets what was remembered, under the lock under which the state changes."""

    def __set__(self, instance: Any, value: Any) -> None:
        try:
            super().__set__(instance, value)
        finally:
            instance.__dict__[_KEY] = PropertyMachine.__get__(self, instance)


class _RememberedState(LoggingPropertyMachine, _Forgetting):
    """Gives the same object until the state changes."""

    def __init__(self, stock: LoggingPropertyMachine) -> None:
        super().__init__(stock.machine_type)
        self.memory = stock.memory

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        remembered = None if instance is None else instance.__dict__.get(_KEY)
        return super().__get__(instance, owner) if remembered is None else remembered


def _remember(RE: Any) -> None:
    extend(RE, _state=_RememberedState(inspect.getattr_static(type(RE), "_state")))


STATE = Acceleration(
    name="state",
    stock={
        "bluesky.run_engine:LoggingPropertyMachine": "71e3c99dc394",
        "bluesky._vendor.super_state_machine.extras:PropertyMachine": "ead837c21454",
        "bluesky._vendor.super_state_machine.extras:ProxyString": "0c8cc287a781",
    },
    in_engine=_remember,
)
"""The state is asked for several times a message; each time a lock is taken and a string made that proxies the state
machine. It is made once a change."""
