"""What the host lets a process use, read from made-up trees of control groups and, where the tests may, from the kernel's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vsrv import host

GIB = 1 << 30


def tree(folder: Path, own: str, files: dict[str, str]) -> Path:
    """A root folder with /proc and /sys/fs/cgroup as a process sees them."""
    meminfo = f"MemTotal: {32 * GIB // 1024} kB\nMemAvailable: {16 * GIB // 1024} kB\n"
    for name, text in {
        "proc/self/cgroup": own,
        "proc/meminfo": meminfo,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {}, 64),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "max 100000\n"}, 4),
        ("0::/../../elsewhere\n", {"cpu.max": "300000 100000\n"}, 3),
        ("0::/a\n", {"cpu.max": "damaged\n"}, 64),
        (
            "4:cpu,cpuacct:/box\n0::/\n",
            {"cpu/box/cpu.cfs_quota_us": "700000\n", "cpu/box/cpu.cfs_period_us": "100000\n"},
            7,
        ),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        (
            "4:cpu:/docker/0123\n",  # in a container: the group is the root of what is mounted
            {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            2,
        ),
        (
            "4:memory:/box\n",
            {"cpu/box/cpu.cfs_quota_us": "1000\n", "cpu/box/cpu.cfs_period_us": "1000\n"},
            64,
        ),
    ],
)
def test_cores_are_those_of_the_narrowest_group(
    own: str, files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert host.num_cores(tree(tmp_path, own, files)) == cores


@pytest.mark.parametrize(
    ("own", "files", "available"),
    [
        ("0::/\n", {}, 16 * GIB),
        ("0::/\n", {"memory.max": "max\n", "memory.current": "5\n"}, 16 * GIB),
        ("0::/a/b\n", {"a/memory.max": f"{8 * GIB}\n", "a/memory.current": f"{3 * GIB}\n"}, 5 * GIB),
        ("0::/a\n", {"a/memory.max": "4\n", "a/memory.current": "5\n"}, 0),
        (
            "9:memory:/box\n",
            {"memory/box/memory.limit_in_bytes": f"{2 * GIB}\n", "memory/box/memory.usage_in_bytes": "0\n"},
            2 * GIB,
        ),
    ],
)
def test_memory_is_what_the_narrowest_group_leaves(
    own: str, files: dict[str, str], available: int, tmp_path: Path
) -> None:
    assert host.available_bytes(tree(tmp_path, own, files)) == available


def test_a_group_of_the_kernels_own() -> None:
    """As `docker --cpus 1` makes it; needs root and a writable tree of either version."""
    root = Path("/sys/fs/cgroup")
    parent = root / "cpu" if (root / "cpu").is_dir() else root
    group = parent / f"vsrv-test-{os.getpid()}"
    try:
        group.mkdir()
        limit = "cpu.max" if (group / "cpu.max").exists() else "cpu.cfs_quota_us"
        (group / limit).write_text("100000 100000" if limit == "cpu.max" else "100000")
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    program = (
        f"open({str(group / 'cgroup.procs')!r}, 'w').write('0')\n"
        "from vsrv import host\nprint(host.num_cores())"
    )
    try:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    finally:
        group.rmdir()
    assert done.stdout == "1\n" and len(os.sched_getaffinity(0)) >= 1
