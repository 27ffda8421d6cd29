"""Functions that bluesky-queueserver's built-in profile has by name."""

import time as clock
from collections import deque

_elements = deque()


def function_sleep(time):
    """Sleep for so many seconds."""
    print(f"******** function_sleep waits for {time} seconds ********")
    clock.sleep(time)
    print("******** function_sleep has waited ********")
    return {"success": True, "time": time}


def push_buffer_element(element):
    """Put an element behind those there are."""
    _elements.append(element)


def pop_buffer_element():
    """Take the first element; raises IndexError if there is none."""
    return _elements.popleft()


def clear_buffer():
    """Take all elements out."""
    _elements.clear()
