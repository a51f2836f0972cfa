"""The only module that prints. People read stderr and tables; programs read stdout with --json."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType

_WORTH_A_LINE = 5_000_000
"""Bytes below which a download is over before anybody wonders."""


@cache
def out() -> Console:
    """Return the console for results (stdout)."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, soft_wrap=False)


@cache
def err() -> Console:
    """Return the console for progress and remarks (stderr)."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False)


def show(*items: RenderableType) -> None:
    """Print results for people on stdout. Text from outside must be wrapped in ``plain``."""
    for item in items:
        out().print(item)


def note(text: str) -> None:
    """Print a remark on stderr, markup off."""
    err().print(text, markup=False)


def line(text: str) -> None:
    """Write one line of machine-readable output on stdout as it is."""
    sys.stdout.write(text + "\n")


def plain(text: object) -> str:
    """Escape rich markup and control characters in text that came from outside."""
    from rich.markup import escape

    clean = "".join(c if c.isprintable() or c in "\n\t" else "�" for c in str(text))
    return escape(clean)


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = ""
) -> None:
    """Print a table; a column whose name starts with ``>`` is right-aligned. Cells are markup.

    Title and caption have lines of their own: as parts of a narrow table they would be as narrow.
    """
    from rich import box
    from rich.table import Table

    t = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        name = column.lstrip(">")
        t.add_column(name, justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        t.add_row(*row)
    if title:
        out().print(title, style="italic")
    out().print(t)
    if caption:
        out().print(caption, style="dim italic")


def emit_json(value: object) -> None:
    """Write one JSON document on stdout. NaN is refused; infinities become strings."""
    sys.stdout.write(json.dumps(to_plain(value), allow_nan=False, ensure_ascii=False, indent=2))
    sys.stdout.write("\n")


def to_plain(value: object) -> Any:
    """Turn dataclasses, enums, mappings and tuples into JSON-ready values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(v) for v in value]
    return value


@contextmanager
def progress(label: str, total: float | None) -> Iterator[Callable[[float, str], None]]:
    """Show a progress bar on stderr; yields ``advance(amount, text)``.

    On a terminal a live bar, otherwise a line at each tenth, so that logs stay readable.
    """
    if err().is_terminal:
        yield from _live_bar(label, total)
    else:
        yield from _logged_bar(label, total)


def download_progress() -> Callable[[str, int, int | None], None]:
    """Return a catalog's progress callback ``(name, bytes so far, bytes in all)``.

    It prints a line on stderr at the start and at each quarter of files that take a while.
    """
    shown: dict[str, int] = {}

    def report(name: str, done: int, total: int | None) -> None:
        if total is None or total < _WORTH_A_LINE:
            return
        quarter = int(4 * done / total)
        if shown.get(name, -1) < quarter:
            shown[name] = quarter
            note(f"fetching {name}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")

    return report


def _live_bar(label: str, total: float | None) -> Iterator[Callable[[float, str], None]]:
    from rich import progress as rp

    bar = rp.Progress(
        rp.TextColumn("{task.description}", markup=False),
        rp.BarColumn(),
        rp.MofNCompleteColumn() if (total or 0) < 1e6 else rp.DownloadColumn(),  # noqa: PLR2004 (bytes)
        rp.TimeRemainingColumn(),
        rp.TextColumn("{task.fields[text]}", markup=False),
        console=err(),
        transient=True,
    )
    with bar:
        task = bar.add_task(label, total=total, text="")

        def advance(amount: float, text: str = "") -> None:
            bar.update(task, advance=amount, text=text)

        yield advance


def _logged_bar(label: str, total: float | None) -> Iterator[Callable[[float, str], None]]:
    done, shown = 0.0, -1

    def advance(amount: float, text: str = "") -> None:
        nonlocal done, shown
        done += amount
        if total and int(10 * done / total) > shown:
            shown = int(10 * done / total)
            note(f"{label}: {100 * done / total:.0f} %  {text}".rstrip())

    yield advance
