"""The launcher against a stub libcuda that keeps what it is told: bytes of arguments, shapes, error texts."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import stub

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs a function of launch_scenarios.py; kernels are compiled once for all of them."""
    folder = tmp_path_factory.mktemp("stub")
    cache = tmp_path_factory.mktemp("cache")
    environment = {**stub.build(folder), "VSRV_CACHE_DIR": str(cache), "PYTHONPATH": str(HERE.parent.parent)}

    def run(name: str) -> Any:
        done = subprocess.run(
            [sys.executable, str(HERE / "launch_scenarios.py"), name],
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_every_kind_of_argument_arrives(scenario: Any) -> None:
    seen = scenario("packing")
    for count, arguments in zip((-5, 7), seen["arguments"], strict=True):
        expected = struct.pack("<IiQqfIQ", 2**32 - 1, count, 0x7F00_1234_5600, -(2**40), 0.1, 3, 2**63 + 8)
        received = bytes.fromhex(arguments)
        assert received[: len(expected)] == expected
        assert not any(received[len(expected) :])
    assert seen["shape"] == [3, 2, 1, 64, 1, 1, 0]
    assert seen["handles"] == [stub.FUNCTION, stub.STREAM]
    assert seen["kernel"] == "every_kind"


def test_loading(scenario: Any) -> None:
    seen = scenario("loading")
    assert seen["before"] == [0, 0], "the limit is raised above 48 KB alone"
    assert seen["after"] == [8, 100_000]  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    assert seen["same"], "equal specs are one handle"
    assert seen["shared"] == 100_000
    assert scenario("loading")["progress"] == [], "nothing is compiled twice"


def test_refusals(scenario: Any) -> None:
    seen = scenario("refusals")
    for name in ("too few", "no arguments", "too many", "number for pointer", "tensor for number"):
        assert seen[name][0] == "kernel_arguments", name
    for name in ("float for integer", "integer too large", "float too large"):
        assert seen[name][0] == "kernel_arguments", name
    assert seen["too few"][1].startswith("kernel scale takes (*f32, *f32, f32, i32): ")
    assert seen["launches"] == 0, "arguments that do not fit never reach the driver"
    assert seen["launch"] == [
        "gpu_error",
        "launch of kernel scale on (3, 2, 1) blocks: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered",
    ]
    assert seen["load"][1] == "load of kernel scale: CUDA_ERROR_INVALID_IMAGE: device kernel image is invalid"
    assert seen["kernel"][1] == "load of kernel scale: CUDA_ERROR_NOT_FOUND: stub"
    assert seen["attribute"][1] == "load of kernel scale: CUDA_ERROR_INVALID_VALUE: stub"


def test_no_driver(tmp_path: Path) -> None:
    """On a machine without libcuda the launcher says what is missing."""
    text = (
        "from vsrv.kernels.cuda.launcher import Launcher\n"
        "import stub\n"
        "from vsrv.errors import ConfigError\n"
        "try:\n"
        "    Launcher(stub.FakeDevice(), print)\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    (tmp_path / "libcuda.so.1").write_bytes(b"no library")
    environment = {
        "PYTHONPATH": f"{HERE}:{HERE.parent.parent}",
        "LD_LIBRARY_PATH": str(tmp_path),
        "PATH": "/usr/bin",
    }
    done = subprocess.run(
        [sys.executable, "-c", text], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("the NVIDIA driver is missing ("), done.stderr
