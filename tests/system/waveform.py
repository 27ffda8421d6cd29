"""A device's value that is an array."""

from typing import Any

import numpy as np


class Waveform:
    """Gives sixteen squares at each call."""

    def __call__(self) -> Any:
        return np.arange(16) ** 2
