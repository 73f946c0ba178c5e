# SPDX-License-Identifier: MIT
"""Tables as CSV, and JSON lines: lines are appended whole, and one that a crash cut is dropped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rllib_per.checkpoints.files import durable_file


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file of numbers; without those that were cut in the middle of a write."""
    lines = path.read_bytes().splitlines(keepends=True)
    header = _cells(lines[0]) if lines else []
    rows = (_whole_row(line, len(header)) for line in lines[1:])
    return [dict(zip(header, row, strict=True)) for row in rows if row is not None]


def _csv_line(cells: Iterable[Any]) -> str:
    """All that is written here is numbers and names: there is nothing to quote."""
    return ",".join("" if cell is None else str(cell) for cell in cells) + "\r\n"


def append_rows(path: Path, columns: list[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write rows behind those that are there; raises OSError, and then none of them is there."""
    header = "" if path.exists() else _csv_line(columns)
    append(path, header + "".join(map(_csv_line, rows)))


def append(path: Path, text: str) -> None:
    """All of `text`, or nothing: half a line would spoil the next one too."""
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        data = text.encode()
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            with suppress(OSError):
                file.truncate(size)
            raise


def _cells(line: bytes) -> list[str]:
    return line.decode("utf-8", "replace").rstrip("\r\n").split(",")


def _whole_row(line: bytes, num_cells: int) -> list[str] | None:
    """The cells of a row of numbers; None if it was cut, perhaps with the next one behind it."""
    cells = _cells(line)
    if len(cells) != num_cells or not line.endswith(b"\n"):
        return None
    try:
        for cell in cells:
            float(cell or 0)
    except ValueError:
        return None
    return cells


def repair_rows(
    path: Path, columns: list[str], resume_at: int, report: Callable[[str], None]
) -> None:
    """Keep the rows up to `resume_at`, and none that was cut; `report` is told of those."""
    header = _csv_line(header_of(path) or columns)
    num_cells = len(header.split(","))

    def steps(line: bytes) -> float | None:
        row = _whole_row(line, num_cells)
        return None if row is None else float(row[0])

    _repair(path, header, steps, resume_at, report)


def header_of(path: Path) -> list[str]:
    """The columns of a table; none if there is no whole header."""
    first = _cells(next(_lines(path), b""))
    is_whole = first[0] == "env_steps" and all(cell.isidentifier() for cell in first)
    return first if is_whole else []


def repair_json_lines(path: Path, resume_at: int, report: Callable[[str], None]) -> None:
    """The same of a file of JSON lines."""
    _repair(path, "", _json_steps, resume_at, report)


def _json_steps(line: bytes) -> float | None:
    try:
        return float(json.loads(line)["env_steps"]) if line.endswith(b"\n") else None
    except (ValueError, TypeError, KeyError):
        return None


def _repair(
    path: Path,
    header: str,
    steps_of: Callable[[bytes], float | None],
    resume_at: int,
    report: Callable[[str], None],
) -> None:
    """Keep the lines up to `resume_at`, and none that was cut: those of which no steps are known.

    The file stays as it was if this does not come to its end.
    """
    if not path.is_file():
        return
    beside = path.with_name(f".{path.name}")
    beside.unlink(missing_ok=True)  # Of a process that was killed here.
    num_cut = 0
    try:
        with durable_file(beside) as kept:
            kept.write(header.encode())
            for line in _lines(path):
                steps = steps_of(line)
                if steps is None:
                    num_cut += line != header.encode()
                elif steps <= resume_at:
                    kept.write(line)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    if num_cut:
        report(f"{path}: {num_cut} cut line{'s' * (num_cut > 1)} dropped")


def _lines(path: Path) -> Iterator[bytes]:
    if path.is_file():
        with path.open("rb") as file:
            yield from file
