"""A fake ``/sys/class/powercap`` whose counters the test turns."""

from __future__ import annotations

from pathlib import Path

DEFAULT_RANGE_UJ = 262_143_328_850
"""``max_energy_range_uj`` of many Intel packages."""


class FakePowercap:
    """Writes RAPL zones under a directory, the way the kernel shows them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def zone(
        self, entry: str, name: str, energy_uj: int, *, range_uj: int | None = DEFAULT_RANGE_UJ
    ) -> Path:
        """Add a zone ("intel-rapl:0", "package-0"); returns its folder."""
        folder = self.root / entry
        folder.mkdir(parents=True)
        (folder / "name").write_text(name + "\n")
        if range_uj is not None:
            (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
        self.turn(entry, energy_uj)
        return folder

    def turn(self, entry: str, energy_uj: int | str) -> None:
        """Set a zone's counter, in microjoules (or to any text)."""
        (self.root / entry / "energy_uj").write_text(f"{energy_uj}\n")
