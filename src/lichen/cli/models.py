"""``lichen models``: list, pull, show and remove models (and the data sets that tasks use)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lichen.cli import console
from lichen.compose import settings
from lichen.core.errors import ConfigError
from lichen.core.measurement import Usage

if TYPE_CHECKING:
    from lichen.catalog import Catalog, Entry
    from lichen.catalog.fetching import Progress
    from lichen.catalog.gguf import GgufHeader
    from lichen.core.model import ModelShape

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
_OFFLINE = click.option("--offline", is_flag=True, help="Use the cache and mirrors only.")
_MIRROR = click.option(
    "--mirror",
    "mirrors",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory with pinned files under any name; before those in LICHEN_MIRROR.",
)
_FAR: Final = 1024
"""Positions of context at which ``show`` gives a second cost of a token."""


@click.group("models")
def command() -> None:
    """List, fetch, inspect and remove models and data sets.

    A model is a name, a path, hf:owner/repo/file[@revision] or an address.
    """


@command.command("list")
@_JSON
def list_models(as_json: bool) -> None:
    """List the models and data sets lichen knows by name, and what else is in the cache."""
    catalog = _catalog()
    cached = catalog.cached()
    here = {c.name for c in cached}
    entries = (*catalog.models(), *catalog.data_sets())
    others = [c for c in cached if not c.pinned_sha256]
    if as_json:
        listed = [_entry_row(e, cached=e.name in here) for e in entries]
        console.emit_json({"entries": listed, "fetched": [_plain(c) for c in others]})
        return
    for title, rows in (("Models", catalog.models()), ("Data sets", catalog.data_sets())):
        console.table(
            title,
            ["name", ">size", "here", "licence", "what"],
            [
                [e.name, _size(e.size), "yes" if e.name in here else "no", e.licence, e.description]
                for e in rows
            ],
        )
    if others:
        cells = [[console.plain(c.name), _size(c.size_bytes)] for c in others]
        console.table("Fetched by reference", ["reference", ">size"], cells)


@command.command("pull")
@click.argument("names", nargs=-1, required=True)
@_OFFLINE
@_MIRROR
@_JSON
def pull(names: tuple[str, ...], offline: bool, mirrors: tuple[Path, ...], as_json: bool) -> None:
    """Fetch models and data sets into the cache and check them."""
    with _bars() as progress:
        catalog = _catalog(offline=offline, mirrors=mirrors, progress=progress)
        data = {e.name for e in catalog.data_sets()}
        pulled = [_pulled(catalog, name, data=name in data) for name in names]
    if as_json:
        console.emit_json(pulled)
        return
    for row in pulled:
        console.note(f"{row['name']}: {row['path']} (SHA-256 {row['sha256']}, {row['licence']})")


@command.command("show")
@click.argument("name")
@_JSON
def show(name: str, as_json: bool) -> None:
    """Show what a model is and what a token costs it; fetches nothing."""
    from lichen.catalog.gguf import read_header

    catalog = _catalog()
    entry, path = catalog.entry(name), catalog.located(name)
    facts: dict[str, Any] = {"name": name, "path": str(path) if path else None}
    if entry is not None:
        facts |= _entry_row(entry, cached=path is not None)
    if path is not None and (entry is None or entry.kind == "model"):
        facts |= _header_facts(read_header(path))
    if as_json:
        console.emit_json(facts)
        return
    _show(facts)
    if path is None:
        console.note(f"not here yet; fetch it with  lichen models pull {name}")


@command.command("diff")
@click.argument("a")
@click.argument("b")
@_JSON
def diff(a: str, b: str, as_json: bool) -> None:
    """Show what changed from model A to model B, tensor group by tensor group."""
    from lichen.catalog.difference import difference
    from lichen.cli.models_view import show_difference

    catalog = _catalog()
    found = difference(_here(catalog, a), _here(catalog, b))
    if as_json:
        console.emit_json(found)
    else:
        show_difference(found, a, b)


def _here(catalog: Catalog, name: str) -> Path:
    """Return where a model is; ConfigError if it would have to be fetched."""
    path = catalog.located(name)
    if path is None:
        raise ConfigError(f"{name!r} is not here; fetch it with  lichen models pull {name}")
    return path


@command.command("rm")
@click.argument("names", nargs=-1, required=True)
@_JSON
def remove(names: tuple[str, ...], as_json: bool) -> None:
    """Remove models and data sets from the cache; never touches your own files."""
    catalog = _catalog()
    freed = {name: catalog.remove(name) for name in names}
    if as_json:
        console.emit_json({"freed_bytes": freed})
        return
    for name, size in freed.items():
        console.note(f"{name}: {_size(size)} freed" if size else f"{name}: was not in the cache")


def _catalog(
    *,
    offline: bool = False,
    mirrors: tuple[Path, ...] = (),
    progress: Progress | None = None,
) -> Catalog:
    from lichen.catalog import Catalog

    return Catalog(
        cache_dir=settings.cache_dir(),
        mirror_dirs=(*mirrors, *settings.mirror_dirs()),
        offline=offline or settings.offline(),
        progress=progress,
    )


@contextmanager
def _bars() -> Iterator[Progress]:
    """Show one progress bar per download, one after the other."""
    with ExitStack() as stack:
        current, last, advance = "", 0, None

        def report(what: str, done: int, total: int | None) -> None:
            nonlocal current, last, advance
            if what != current or advance is None:
                stack.close()
                current, last = what, 0
                advance = stack.enter_context(console.progress(f"fetching {what}", total))
            advance(done - last, "")
            last = done

        yield report


def _pulled(catalog: Catalog, name: str, *, data: bool) -> dict[str, Any]:
    if data:
        found = catalog.data_set(name)
        return {
            "name": name,
            "path": str(found.path),
            "sha256": found.sha256,
            "licence": found.licence,
        }
    model = catalog.model(name)
    return {
        "name": name,
        "path": model.path,
        "sha256": model.sha256,
        "licence": model.licence,
    }


def _entry_row(entry: Entry, *, cached: bool) -> dict[str, Any]:
    row: dict[str, Any] = _plain(entry)
    del row["sources"]
    return {**row, "cached": cached}


def _header_facts(header: GgufHeader) -> dict[str, Any]:
    """Return what ``show`` says about a model's file, JSON-ready."""
    from lichen.catalog.shape import groups_of, shape_of, tied_output

    shape = shape_of(header)
    return {
        "gguf_version": header.version,
        "title": header.text("general.name"),
        "claimed_licence": header.text("general.license"),
        "base_models": _base_models(header),
        "shape": shape,
        "tied_output": tied_output(header),
        "groups": [{**_plain(g), "bits_per_weight": g.bits_per_weight} for g in groups_of(header)],
        "per_token": _per_token(shape),
    }


def _base_models(header: GgufHeader) -> list[str]:
    """Return the ancestors that a header names (gguf.md, general.base_model.*)."""
    listed = []
    count = header.metadata.get("general.base_model.count", 0)
    for n in range(min(count, 16) if isinstance(count, int) else 0):
        prefix = f"general.base_model.{n}"
        listed.append(header.text(f"{prefix}.repo_url") or header.text(f"{prefix}.name"))
    return [text for text in listed if text]


def _per_token(shape: ModelShape) -> dict[str, float]:
    """Return the cost of decoding one token at the start and after ``_FAR`` positions."""
    far = Usage(prompt=_FAR, cached=_FAR, completion=1)
    return {
        "weight_bytes": shape.weight_bytes,
        "kv_bytes_per_position": shape.kv_bytes_per_token(),
        "flop": shape.flop(Usage(completion=1)),
        f"flop_at_{_FAR}": shape.flop(far),
    }


def _show(facts: dict[str, Any]) -> None:
    shape: ModelShape | None = facts.get("shape")
    rows = [
        (label, str(facts[key]))
        for key, label in (
            ("title", "title in the file"),
            ("description", "what"),
            ("path", "path"),
            ("sha256", "SHA-256 (pinned)"),
            ("licence", "licence"),
            ("claimed_licence", "licence in the file"),
            ("origin", "made from"),
            ("chat", "chat template"),
            ("fim", "fill in the middle"),
        )
        if facts.get(key)
    ]
    rows += [("lineage in the file", text) for text in facts.get("base_models", [])]
    if shape is not None:
        rows += _shape_rows(shape, facts)
    title = console.plain(facts["name"])
    console.table(title, ["", ""], [[label, console.plain(text)] for label, text in rows])
    if shape is not None:
        console.table(
            "Weights",
            ["group", ">tensors", ">weights", ">bytes", ">bits/weight", "stored as"],
            [_group_cells(g) for g in facts["groups"]],
        )


def _shape_rows(shape: ModelShape, facts: dict[str, Any]) -> list[tuple[str, str]]:
    cost = facts["per_token"]
    tied = "the embedding itself" if facts["tied_output"] else "stored apart from the embedding"
    return [
        ("architecture", shape.architecture),
        ("weights stored", f"{shape.parameters:,}"),
        ("weights per token", f"{shape.active_parameters:,}"),
        ("output matrix", tied),
        ("layers", f"{shape.layers} of width {shape.embedding}, feed-forward {shape.feed_forward}"),
        ("heads", f"{shape.heads} ({shape.kv_heads} for keys and values) of {shape.head_dim}"),
        ("vocabulary", f"{shape.vocabulary:,}"),
        ("context", f"{shape.context:,} tokens"),
        ("bytes read per decoded token", f"{cost['weight_bytes']:,} of weights, and"),
        ("", f"{cost['kv_bytes_per_position']:,.0f} of keys and values (f16) per position"),
        (
            "FLOP per decoded token",
            f"{cost['flop']:.3g}; {cost[f'flop_at_{_FAR}']:.3g} at {_FAR:,}",
        ),
    ]


def _group_cells(group: dict[str, Any]) -> list[str]:
    whole = group["parameters"]
    stored = [f"{name} {100 * count / whole:.0f} %" for name, count in group["types"]]
    return [
        group["group"],
        f"{group['tensors']:,}",
        f"{whole:,}",
        f"{group['size_bytes']:,}",
        f"{group['bits_per_weight']:.2f}",
        ", ".join(stored),
    ]


def _plain(value: object) -> Any:
    return console.to_plain(value)


def _size(size: int) -> str:
    """Return a size in decimal units, as downloads are counted."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} B"
