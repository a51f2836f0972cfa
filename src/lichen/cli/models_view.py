"""What ``lichen models diff`` shows. All names and values come from files: they are escaped."""

from __future__ import annotations

from lichen.catalog.difference import ModelDifference, RoleChange, RoleContent
from lichen.catalog.lineage import Lineage
from lichen.cli import console

_SHORT_HASH = 12


def show_difference(found: ModelDifference, a: str, b: str) -> None:
    """Print tensors by role, the numbers that follow, metadata, and where both come from."""
    changed = [r for r in found.roles if r.changed]
    console.table(
        f"{console.plain(a)} -> {console.plain(b)}",
        ["", ">A", ">B", ">change"],
        _numbers(found),
    )
    if changed:
        console.table(
            "Tensors that changed",
            ["group", "A", "B", ">A MB", ">B MB"],
            [_cells(r) for r in changed],
        )
    same = len(found.roles) - len(changed)
    console.note(f"{same} of {len(found.roles)} tensor groups have the same shapes and types")
    if found.keys:
        console.table(
            "Metadata that changed",
            ["key", "A", "B"],
            [[console.plain(k.key), console.plain(k.a), console.plain(k.b)] for k in found.keys],
        )
    for name, lineage in (("A", found.lineage_a), ("B", found.lineage_b)):
        _show_lineage(name, lineage)
    if found.same:
        console.note("the headers say nothing different; weights were not compared")


def _numbers(found: ModelDifference) -> list[list[str]]:
    rows = [_row("bytes of the file", found.bytes_a, found.bytes_b)]
    a, b = found.shape_a, found.shape_b
    if a is not None and b is not None:
        rows += [_row(label, getattr(a, field), getattr(b, field)) for label, field in _FIELDS]
    return rows


_FIELDS = (
    ("vocabulary", "vocabulary"),
    ("layers", "layers"),
    ("feed-forward width", "feed_forward"),
    ("weights stored", "parameters"),
    ("weights per token", "active_parameters"),
    ("bytes read per decoded token", "weight_bytes"),
)
"""Label -> field of ``ModelShape``."""


def _row(label: str, a: int, b: int) -> list[str]:
    change = "" if a == b else f"{100 * (b / a - 1):+.1f} %" if a else "new"
    return [label, f"{a:,}", f"{b:,}", change]


def _cells(change: RoleChange) -> list[str]:
    return [
        console.plain(change.role),
        _described(change.a),
        _described(change.b),
        f"{change.a.size_bytes / 1e6:,.2f}" if change.a else "",
        f"{change.b.size_bytes / 1e6:,.2f}" if change.b else "",
    ]


def _described(content: RoleContent | None) -> str:
    if content is None:
        return "none"
    types = ", ".join(f"{n} {kind}" for kind, n in content.types)
    shapes = ", ".join("x".join(map(str, shape)) for shape, _ in content.shapes[:2])
    more = " ..." if len(content.shapes) > 2 else ""  # noqa: PLR2004 (as many as are shown)
    return f"{types} ({shapes}{more})"


def _show_lineage(name: str, lineage: Lineage) -> None:
    if not lineage.ancestors:
        return
    chain = " from ".join(sha[:_SHORT_HASH] for sha in lineage.ancestors)
    console.note(f"{name} was made from {chain}")
    if lineage.recipe:
        console.note(f"by the recipe\n{lineage.recipe.rstrip()}")
    for mark in lineage.requantised:
        console.note(f"quantised a second time: {mark}")
    if lineage.engine:
        shown = ", ".join(f"{k} = {v}" for k, v in lineage.engine.items())
        console.note(f"recommends the engine options {shown}")
