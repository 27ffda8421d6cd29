"""What becomes of an HDF5 file that cannot be written any more."""

import ctypes

__all__ = ["keep_for_ever"]


def keep_for_ever(owner: object) -> None:
    """Never free what holds such a file: HDF5 would flush again, fail again, and end in a segmentation fault.

    Its other files go on. Seen with HDF5 2.0: also at the interpreter's end, so that no list of ours would do.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))
