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
from lichen.meter.overhead import Overhead, measure_overhead

PURPOSES = {
    "llama": "run GGUF models in this process",
    "hub": "fetch models from the Hugging Face hub",
    "report": "charts and the HTML page",
    "tasks": "repository tasks: infill, search",
    "nvidia": "measure NVIDIA GPUs",
    "postgres": "keep runs in PostgreSQL",
    "torch": "run transformers models",
}
"""What an extra is for; extras that are not here bundle others or serve development."""

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


@click.command()
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
        ("processor", e.cpu_model),
        ("CPUs", f"{e.usable_cpus} usable of {e.logical_cpus}"),
        ("memory", f"{e.memory_bytes / BYTES_PER_GIB:.1f} GiB"),
        ("GPUs", ", ".join(e.gpus) or "none found"),
        ("virtualisation", e.virtualisation),
        ("frequency governor", e.governor),
        ("load (1 min)", load),
        ("system", e.os),
        ("Python, lichen", f"{e.python_version}, {e.lichen_version}"),
    )
    console.table("This machine", ("", ""), [(k, console.plain(v)) for k, v in facts])


def _present_statuses(title: str, statuses: Sequence[ProbeStatus]) -> None:
    rows: list[tuple[str, str, str, str]] = []
    for s in statuses:
        mark = "[green]yes[/green]" if s.available else "[yellow]no[/yellow]"
        finding = console.plain(s.reason)
        if s.remedy:
            finding += f"\n[dim]to do:[/dim] {console.plain(s.remedy)}"
        how = f"{s.method}" if s.available else "-"
        rows.append((f"{s.name}\n[dim]{console.plain(s.quantity)}[/dim]", mark, how, finding))
    console.table(title, ("what", "here", "method", "how, or why not"), rows)


def _present_extras(extras: Sequence[Extra]) -> None:
    rows: list[tuple[str, str, str, str]] = []
    for extra in extras:
        mark = "[green]yes[/green]" if extra.installed else "[yellow]no[/yellow]"
        if extra.installed:
            text = ", ".join(f"{name} {version}" for name, version in extra.packages)
        else:
            text = f'pip install "lichen[{extra.name}]"'
        rows.append((extra.name, mark, extra.purpose, console.plain(text)))
    console.table("Optional parts", ("extra", "here", "for", "packages"), rows)


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
