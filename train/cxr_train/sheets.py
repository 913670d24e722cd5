"""Somebody's table, CSV or Excel, as text cells that can still be named by line or by cell."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openpyxl
import pandas as pd
from openpyxl.utils import get_column_letter

from cxr_edge.errors import UsageError


@dataclass(frozen=True)
class Sheet:
    """`rows`: str cells, stripped of nothing, index 0..n-1; `lines`: where each row stands in the file, from 1.

    `letters` are an Excel sheet's column letters by name; a CSV has none.
    """

    file: str
    rows: pd.DataFrame
    lines: tuple[int, ...]
    letters: dict[str, str]

    def at(self, index: int, column: str) -> str:
        """Where a cell stands, to begin a sentence with: `table.csv line 3: ` or `table.xlsx B3: `."""
        if letter := self.letters.get(column):
            return f"{self.file} {letter}{self.lines[index]}: "
        return f"{self.file} line {self.lines[index]}: "


def read(path: Path) -> Sheet:
    """Read a CSV (UTF-8; commas, semicolons or tabs) or the first sheet of an Excel file; its first row is the header.

    Raises:
        UsageError: it is neither, has no header, a column twice, or a row longer than the header.
    """
    excel = path.suffix.lower() == ".xlsx"
    try:
        records = [
            (line, cells) for line, cells in (_excel(path) if excel else _csv(path)) if any(map(str.strip, cells))
        ]
    except (OSError, ValueError, KeyError, csv.Error, zipfile.BadZipFile, SyntaxError) as error:
        kind, remedy = ("an Excel", "save it as .xlsx") if excel else ("a CSV", "give a CSV file, UTF-8, or an .xlsx")
        raise UsageError(f"{path}: cannot be read as {kind} table ({error})", remedy) from error
    if not records:
        raise UsageError(f"{path}: the table is empty", "its first row must name the columns")
    header = [name.strip() for name in records[0][1]]
    named = [number for number, name in enumerate(header) if name]
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise UsageError(f"{path}: column {twice[0]!r} stands there twice", "rename one of the two")
    for line, cells in records[1:]:
        if any(map(str.strip, cells[len(header) :])):
            raise UsageError(f"{path} line {line}: has more cells than the header", "quote cells that hold a comma")
    table = [[row[number] if number < len(row) else "" for number in named] for _, row in records[1:]]
    return Sheet(
        path.name,
        pd.DataFrame(table, columns=[header[number] for number in named], dtype=str),
        tuple(line for line, _ in records[1:]),
        {header[number]: get_column_letter(number + 1) for number in named} if excel else {},
    )


def _csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        file.seek(0)
        # A spreadsheet of a country with decimal commas separates by semicolons.
        reader = csv.reader(file, delimiter=max(",;\t", key=first.count), strict=True)
        start = 1
        for cells in reader:
            yield start, cells
            start = reader.line_num + 1


def _excel(path: Path) -> Iterator[tuple[int, list[str]]]:
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        for line, cells in enumerate(book.worksheets[0].iter_rows(values_only=True), start=1):
            yield line, ["" if cell is None else str(cell) for cell in cells]
    finally:
        book.close()
