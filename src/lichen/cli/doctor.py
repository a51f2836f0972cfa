"""``lichen doctor``: what can be measured here, by which method, and what to do about the rest."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Sequence
from dataclasses import dataclass

import click

import lichen.sandbox
from lichen.cli import console
from lichen.core.ports import ProbeStatus
from lichen.core.record import Environment
from lichen.core.units import BYTES_PER_GIB
from lichen.meter import capture, open_meter
from lichen.meter.energy_rung import EnergyRung, energy_rung
from lichen.meter.ladder import targets
from lichen.meter.overhead import Overhead, measure_overhead

PURPOSES = {
    "llama": "run GGUF models in this process",
    "ik": "run them with x86 kernels that read faster",
    "hub": "fetch models from the Hugging Face hub",
    "report": "charts and the HTML page",
    "tasks": "repository tasks: infill, search",
    "nvidia": "measure NVIDIA GPUs",
    "postgres": "keep runs in PostgreSQL",
    "torch": "run transformers models",
}
"""What an extra is for; extras that are not here bundle others or serve development."""

_FIELDS = {
    "cpu_s": "CPU time",
    "peak_memory_bytes": "peak memory",
    "foreign_cpu_s": "load of others",
    "steal_s": "stolen time",
    "energy_j": "energy",
}

_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+).*\bextra\s*==\s*['\"]([\w-]+)['\"]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """An optional part of lichen: its packages with their version, None if not installed."""

    name: str
    purpose: str
    packages: tuple[tuple[str, str | None], ...]

    @property
    def installed(self) -> bool:
        """Whether every package is there."""
        return all(version is not None for _, version in self.packages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything the doctor found; the JSON document."""

    environment: Environment
    energy: EnergyRung
    probes: tuple[ProbeStatus, ...]
    sandboxes: tuple[ProbeStatus, ...]
    extras: tuple[Extra, ...]
    overhead: Overhead | None


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document to stdout.")
@click.option(
    "--self-test/--no-self-test",
    default=True,
    help="Measure for 2 s what the meter itself costs.",
)
def command(as_json: bool, self_test: bool) -> None:
    """Say what can be measured here, how, and what cannot."""
    findings = examine(self_test_s=2.0 if self_test else 0.0)
    if as_json:
        console.emit_json(findings)
    else:
        present(findings)


def examine(*, self_test_s: float) -> Findings:
    """Look at everything; the self-test takes ``self_test_s`` seconds, 0 leaves it out."""
    with open_meter() as meter:
        probes = sorted(meter.status(), key=lambda s: (s.quantity.startswith("energy"), s.name))
        overhead = measure_overhead(meter, self_test_s) if self_test_s > 0 else None
    return Findings(
        environment=capture(),
        energy=energy_rung(probes),
        probes=tuple(probes),
        sandboxes=_sandboxes(),
        extras=_extras(),
        overhead=overhead,
    )


def present(findings: Findings) -> None:
    """Print the findings for people."""
    _present_machine(findings.environment)
    _present_statuses("What can be measured", findings.probes)
    console.show(f"\n[bold]{console.plain(findings.energy.sentence)}[/bold]\n")
    if findings.sandboxes:
        _present_statuses("Running untrusted programs", findings.sandboxes)
    console.show("")
    _present_extras(findings.extras)
    if findings.overhead is not None:
        o = findings.overhead
        console.show(
            f"\nThe meter itself: {100 * o.sampler_core_share:.2f} % of one core while a window is "
            f"open, {1000 * o.open_s:.2f} ms to open and {1000 * o.close_s:.2f} ms to close one."
        )


def _present_machine(e: Environment) -> None:
    load = "unknown" if e.load_average is None else f"{e.load_average:.2f}"
    facts = (
        ("processor", f"{e.cpu_model}, {e.usable_cpus} of {e.logical_cpus} CPUs usable"),
        ("memory", f"{e.memory_bytes / BYTES_PER_GIB:.1f} GiB"),
        ("GPUs", ", ".join(e.gpus) or "none found"),
        ("virtualisation", e.virtualisation),
        ("state", f"load {load} (1 min), frequency governor {e.governor}"),
        ("system", f"{e.os}, Python {e.python_version}, lichen {e.lichen_version}"),
    )
    width = max(len(name) for name, _ in facts)
    console.show(*(f"[dim]{n:<{width}}[/dim]  {console.plain(v)}" for n, v in facts), "")


def _present_statuses(title: str, statuses: Sequence[ProbeStatus]) -> None:
    rows: list[tuple[str, str, str, str]] = []
    for s in statuses:
        finding = console.plain(s.reason)
        if s.remedy:
            finding += f"\n[dim]to do:[/dim] {console.plain(s.remedy)}"
        method = str(s.method) if s.available else "-"
        rows.append((_in_words(s), _mark(yes=s.available), method, finding))
    console.table(title, ("what", "here", "method", "how, or why not"), rows)


def _present_extras(extras: Sequence[Extra]) -> None:
    rows: list[tuple[str, str, str, str]] = []
    for extra in extras:
        text = f'pip install "lichen[{extra.name}]"'
        if extra.installed:
            name, version = extra.packages[0]
            more = len(extra.packages) - 1
            text = f"{name} {version}" + (f" and {more} more" if more else "")
        mark = _mark(yes=extra.installed)
        rows.append((extra.name, mark, extra.purpose, console.plain(text)))
    console.table("Optional parts", ("extra", "here", "for", "package, or what to do"), rows)


def _mark(*, yes: bool) -> str:
    return "[green]yes[/green]" if yes else "[yellow]no[/yellow]"


def _in_words(status: ProbeStatus) -> str:
    """Write what a status is about for people: its targets, or its name if it has none."""
    words: dict[str, None] = {}
    for target in targets(status.quantity):
        word = _FIELDS.get(target.field)
        if word is not None:
            words[f"{word} of {target.component}" if target.field == "energy_j" else word] = None
    return console.plain("\n".join(words) or status.name)


def _sandboxes() -> tuple[ProbeStatus, ...]:
    if not hasattr(lichen.sandbox, "status"):
        return ()
    return tuple(lichen.sandbox.status())


def _extras() -> tuple[Extra, ...]:
    """Return the extras of the installed lichen, from its own metadata."""
    members: dict[str, list[str]] = {name: [] for name in PURPOSES}
    for requirement in importlib.metadata.requires("lichen") or []:
        found = _REQUIREMENT.match(requirement)
        if found and found[2] in members:
            members[found[2]].append(found[1])
    return tuple(
        Extra(
            name=name,
            purpose=PURPOSES[name],
            packages=tuple((p, _version(p)) for p in packages),
        )
        for name, packages in members.items()
        if packages
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
