"""What a process has of this computer's memory."""

from __future__ import annotations

from pathlib import Path


def own_memory() -> dict[str, int]:
    """Bytes: what this process has for itself; its share of all that is resident for it; its page tables. Empty where
    the system does not tell."""
    found = {}
    for path, names in (
        ("smaps_rollup", {"Anonymous": "own", "Pss": "resident"}),
        ("status", {"VmPTE": "page_tables"}),
    ):
        try:
            text = Path("/proc/self", path).read_text()
        except OSError:
            continue
        for line in text.splitlines():
            name, _, rest = line.partition(":")
            if name in names:
                found[names[name]] = int(rest.split()[0]) * 1024
    return found
