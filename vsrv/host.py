"""What the host lets this process use: cores and memory, within the limits of its control groups (cgroup v2 and v1)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")


def num_cores(system: Path = _ROOT) -> int:
    """Cores that this process may keep busy: those of its affinity mask, or fewer if a cgroup limits its time (docker --cpus, CPUQuota=).

    More threads than that would be halted together for the rest of each period, spinning ones and waited-for ones alike.
    Measured (0.6B, a limit of one core on a host with two, two clients): 22 tokens/s with one thread, 15 with two.
    """
    cores = len(os.sched_getaffinity(0))
    for folder in _folders(system, "cpu"):
        if (share := _share(folder)) is not None:
            cores = min(cores, max(1, int(share)))
    return cores


def num_threads(asked: int) -> int:
    """--threads; for 0 as many as there are cores to keep busy."""
    return asked or num_cores()


def _share(folder: Path) -> float | None:
    """Time of the processors in a period, over the period; None without a limit. Kernel documentation: cgroup-v2, sched-bwc."""
    try:
        if (limit := folder / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None  # no such controller here, or "max"


def available_bytes(system: Path = _ROOT) -> int:
    """What this process may still take: MemAvailable, or less if a cgroup limits it."""
    available = 1 << 62
    for line in (system / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    for folder in _folders(system, "memory"):
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            try:
                left = int((folder / limit).read_text()) - int((folder / used).read_text())
            except (OSError, ValueError):
                continue  # no such controller here, or "max"
            available = min(available, max(0, left))
    return available


def _folders(system: Path, controller: str) -> Iterator[Path]:
    """Where limits of this process can be: its group and all above it, in the tree of v2 and in the controller's of v1.

    In a container the own group is mounted as the root, whatever /proc/self/cgroup calls it.
    """
    root = system / "sys/fs/cgroup"
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    yield root / controller
    yield root
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top = root
        elif controller in controllers.split(","):
            top = root / controller
        else:
            continue
        folder = top / path.lstrip("/")
        while folder != top and top in folder.parents:
            yield folder
            folder = folder.parent
