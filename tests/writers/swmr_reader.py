"""A process that reads along as a person's script does: `python swmr_reader.py PATH STREAM KEY`.

It opens the file once, refreshes it, and prints the number of rows whenever there are more. It ends when the file is
gone, with what it still has open then; it fails if a row it was told of does not have its value, which is its number
from 0.
"""

import sys
import time
from pathlib import Path

import h5py
import numpy as np


def main(path: Path, stream: str, key: str) -> None:
    with h5py.File(path, "r", swmr=True) as file:
        group = file["entry/streams"][stream]
        count, column = group["seq_num"], group[key]
        told, is_over = 0, False
        while not is_over:
            is_over = not path.exists()  # one more look after that
            count.refresh()
            rows = len(count)
            column.refresh()
            assert len(column) >= rows, f"{rows} events, but {len(column)} values"
            if rows > told:
                np.testing.assert_array_equal(column[told:rows], np.arange(told, rows))
                np.testing.assert_array_equal(count[told:rows], np.arange(told, rows) + 1)
                told = rows
                sys.stdout.write(f"{rows}\n")
                sys.stdout.flush()
            time.sleep(0.002)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
