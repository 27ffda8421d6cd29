"""Plans from a spreadsheet: one a row, name, positional arguments, then arguments by name."""

import ast
import csv
import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from bec_bluesky.errors import BadArgumentError

__all__ = ["plans_of"]

_MOST_ROWS = 10_000
_LARGEST_UNPACKED = 256 * 1024 * 1024
"""Bytes of a workbook's parts; a few thousand bytes may unpack to gigabytes."""
Row = Sequence[Any]


def plans_of(name: str, content: bytes) -> list[dict[str, Any]]:
    """Read plans from a `.csv` or `.xlsx` file (its first sheet), whose first row names the columns.

    Cells are Python literals and never evaluated: `'motor', -1, 1` among the arguments, a number, a list, a word in
    quotes elsewhere. Raises BadArgumentError that names the row.
    """
    kind = PurePath(name).suffix.lower()
    if kind not in (".csv", ".xlsx"):
        raise BadArgumentError(
            f"File '{name}' (extension '{kind}') is not supported: supported extensions ('.xlsx', '.csv')"
        )
    rows = _csv_rows(content) if kind == ".csv" else _workbook_rows(content)
    header = [str(cell).strip() if cell is not None else "" for cell in next(rows, ())]
    if not header:
        raise BadArgumentError("Spreadsheet is expected to have at least 1 column (plan name): 0 columns")
    names = [each for each in header[2:] if each]
    if len({each.lower() for each in names}) != len(names):
        raise BadArgumentError(f"Some plan kwarg names are identical: {names}")
    plans: list[dict[str, Any]] = []
    for number, row in enumerate(rows, 1):
        if number > _MOST_ROWS:
            raise BadArgumentError(f"the spreadsheet has more than {_MOST_ROWS:,} rows: send it in parts")
        if row and not _is_empty(row[0]):
            plans.append(_plan(number, header, row))
    return plans


def _plan(number: int, header: list[str], row: Row) -> dict[str, Any]:
    name = str(row[0]).strip().strip("'\"")
    if not name.isidentifier():
        raise BadArgumentError(f"Plan name '{row[0]}' (row {number}) is not a valid plan name")
    plan: dict[str, Any] = {"name": name, "item_type": "plan"}
    try:
        if len(row) > 1 and not _is_empty(row[1]):
            plan["args"] = _literal(f"[{row[1]}]")
        cells = zip(header[2:], row[2:], strict=False)
        named = {key: _value(cell) for key, cell in cells if key and not _is_empty(cell)}
    except BadArgumentError as error:
        raise BadArgumentError(f"Error occurred while interpreting plan parameters in row {number}: {error}") from None
    return plan | ({"kwargs": named} if named else {})


def _value(cell: Any) -> Any:
    """Numbers of a workbook come as numbers: whole ones as such."""
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    return cell if isinstance(cell, bool | int | float) else _literal(str(cell))


def _literal(text: str) -> Any:
    try:
        return _plain(ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise BadArgumentError(
            f"{text[:100]!r} is no Python literal: numbers, words in quotes, lists and dictionaries of them"
        ) from None


def _plain(value: Any) -> Any:
    """Give what can be written as JSON."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(type(value))


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _csv_rows(content: bytes) -> Iterator[Row]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadArgumentError("the file is not in UTF-8: export it as such") from None
    try:
        yield from csv.reader(io.StringIO(text, newline=""))
    except csv.Error as error:
        raise BadArgumentError(f"the file cannot be read as CSV: {error}") from None


def _workbook_rows(content: bytes) -> Iterator[Row]:
    import openpyxl

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as parts:
            unpacked = sum(part.file_size for part in parts.infolist())
        if unpacked > _LARGEST_UNPACKED:
            raise BadArgumentError(f"the workbook unpacks to {unpacked:,} bytes: send it in parts")
        workbook = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        yield from workbook.worksheets[0].iter_rows(values_only=True)
    except BadArgumentError:
        raise
    except Exception as error:  # of a damaged file, whatever its parsers raise
        raise BadArgumentError(f"the file cannot be read as a workbook: {type(error).__name__}: {error}") from error
