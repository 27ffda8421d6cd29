"""What is public is what `__all__` lists, sorted, and it is there."""

import importlib
import pkgutil

import pytest

import bec_bluesky

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(bec_bluesky.__path__, "bec_bluesky.")
    if not module.name.rpartition(".")[2].startswith("__")
)


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_listed_sorted_and_there(name: str) -> None:
    module = importlib.import_module(name)
    listed = getattr(module, "__all__", None)
    assert listed is not None, f"{name} has no __all__"
    assert list(listed) == sorted(listed, key=_isort_order)
    for public in listed:
        assert hasattr(module, public)


def _isort_order(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions: the order that ruff keeps."""
    if name.isupper():
        return 0, name
    return (1, name) if name[:1].isupper() else (2, name)
