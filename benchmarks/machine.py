"""What a figure was measured on: printed by every benchmark, so that no figure stands without it."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from topo_callback.libraries import versions

_PACKAGES = ("topo_callback", "torch", "transformers", "numpy", "numba", "gudhi", "ripser", "dionysus", "loky")


def describe_machine() -> str:
    """Processor, memory, system, versions and commit, one a line, as Markdown."""
    found = versions(_PACKAGES)
    return "\n".join(
        (
            f"- processor: {_processor()}, {available_processors()} available to this process",
            f"- memory: {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
            f"- system: {platform.system()} {platform.machine()}",
            f"- load at the start: {os.getloadavg()[0]:.1f} runnable tasks (1 minute)",
            "- versions: " + ", ".join(f"{name} {number}" for name, number in found.items()),
            f"- commit: {_commit()}",
        )
    )


def available_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _commit() -> str:
    """The commit of this checkout, and whether tracked files of the package differ from it."""
    here = Path(__file__).parent
    try:
        commit = subprocess.check_output(["git", "rev-parse", "--short=12", "HEAD"], cwd=here, text=True).strip()
        changed = subprocess.check_output(["git", "status", "--short", "-uno", "../topo_callback"], cwd=here, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}, with local changes to the package" if changed.strip() else commit


if __name__ == "__main__":
    print(describe_machine())
