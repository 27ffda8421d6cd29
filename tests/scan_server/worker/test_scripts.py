"""What of a script workers execute again, and what they leave out."""

import ast
from typing import Any

import pytest

from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.around_queue import KeptScript
from bec_bluesky.scan_server.worker._scripts import Scripts, definitions

FILLS = "for n in 'ab':\n  x[n] = 1\n  print(n)"


def left(text: str) -> str:
    """Give what is executed again, without the `pass` that stands for what is not."""
    tree = definitions(text, "")
    assert tree is not None
    return "\n".join(line for line in ast.unparse(tree).splitlines() if line.strip() != "pass")


def test_a_script_that_defines_nothing_is_executed_by_nobody_else() -> None:
    assert definitions("import os\nx = 1\nprint(x)\nfor n in range(3):\n    print(n)\n", "") is None
    assert definitions("x = measure()", "") is None
    assert left("from plans import scans\nx = 1") == "from plans import scans\nx = 1"


def test_calls_for_their_effect_are_left_out_and_what_is_built_stays() -> None:
    text = "import sys\nsys.path.append('a')\nprint(1)\nx = [1]\nx.append(2)\ncaput('PV', 3)\ndef plan(): yield x\n"
    wanted = "import sys\nsys.path.append('a')\nx = [1]\nx.append(2)\n\ndef plan():\n    yield x"
    assert left(text) == wanted


def test_loops_and_with_blocks_that_do_something_are_left_out_whole() -> None:
    text = """
def plan(n):
    for n in range(n):
        print(n)
    yield

for n in range(3):
    print(n)
while not ready():
    sleep(1)
with open("log", "w") as file:
    file.write("x")
"""
    assert left(text) == "def plan(n):\n    for n in range(n):\n        print(n)\n    yield"


def test_blocks_that_only_build_stay() -> None:
    text = "table = {}\nfor n in range(3):\n    table[n] = n\n    seen.append(n)\n\ndef plan():\n    yield table"
    assert left(text) == text


def test_within_if_and_try_the_same_is_left_out() -> None:
    text = "try:\n    import numpy\nexcept ImportError:\n    print('no')\nelse:\n    print('yes')\ndef plan(): yield"
    wanted = "try:\n    import numpy\nexcept ImportError:\nelse:\n\ndef plan():\n    yield"
    assert left(text) == wanted


@pytest.mark.parametrize(
    "block", ["for x in 'ab': print(x)", "with a as x: x.go()", "match a:\n  case x: go(x)", FILLS]
)
def test_what_a_block_that_does_something_makes_cannot_be_used_by_a_definition(block: str) -> None:
    with pytest.raises(RefusedError, match=r"s.py defines something that needs x, and the block of line 3") as refused:
        definitions(f"def plan():\n    yield x\n{block}\n", "s.py")
    assert refused.value.code == "script"


def test_a_local_name_of_a_function_is_no_name_of_the_module() -> None:
    text = "def plan():\n    x = 1\n    return [y for y in (x,)]\nfor x in 'ab':\n    y = x\n    print(y)\n"
    assert "for x in" not in left(text)


def test_a_runengine_of_the_script_does_not_take_the_place_of_the_queues() -> None:
    engine = object()
    namespace: dict[str, Any] = {"RE": engine, "__name__": "startup"}
    scripts = Scripts(namespace)
    text = "RE = 'mine'\ndef plan(): yield\n"
    defines, note = scripts.run("1", "", text)
    assert defines and "RE stays" in note and namespace["RE"] is engine
    scripts.take(KeptScript(script_id="2", text=text))
    assert namespace["RE"] is engine
    assert scripts.run("3", "", "x = len('a')") == (False, "")
