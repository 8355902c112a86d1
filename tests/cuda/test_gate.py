"""The compile gate itself and the simulator as a loader, on kernels that are good and kernels that are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gate
import numpy as np
import pytest
import sample_kernels
import simulated

from vsrv.kernels.cuda import operations, variants
from vsrv.kernels.cuda.source import KernelSource, parse_arch, specialise

SM_80 = parse_arch("sm_80")
GOOD = gate.Facts(64, 0, 0, 1000, {})


def test_a_good_kernel_passes() -> None:
    facts = gate.check(specialise(sample_kernels.make_helped), registers=32)
    assert set(facts) == {"sm_80", "sm_90a"}
    assert 0 < facts["sm_80"].registers <= 32 and facts["sm_80"].cubin_bytes > 1000


def test_all_faults_of_a_kernel_are_named() -> None:
    with pytest.raises(AssertionError) as refused:
        gate.check(specialise(sample_kernels.make_wide), registers=8, architectures=("sm_80",))
    words = str(refused.value)
    assert all(line.startswith("make_wide() for sm_80: ") for line in words.splitlines())
    for fault in ("a 64-bit float", "a 64-bit division", "bytes of stack", "registers, more than 8"):
        assert fault in words, words


def test_calls_are_seen() -> None:
    """In PTX, where libnvvm has not inlined a function."""
    call = gate._SLOW["a call"]
    assert call.search("\tcall.uni (retval0), helper, (param0);") and call.search(
        "\t@%p1 call (retval0), f, ();"
    )
    assert not call.search("\tst.param.b32 [param0+0], %r1; // callseq") and not call.search(
        "recall.b32 %r1;"
    )


@pytest.mark.parametrize(
    ("shape", "facts", "fault"),
    [
        ({}, GOOD, None),
        ({}, gate.Facts(64, 8, 0, 1, {}), "8 bytes of stack"),
        ({}, gate.Facts(64, 0, 4, 1, {}), "4 bytes spilled"),
        ({}, gate.Facts(129, 0, 0, 1, {}), "129 registers, more than 128"),
        ({}, gate.Facts(64, 0, 0, 1, {"a call": ["call f;"]}), "a call: call f;"),
        ({"threads": 256, "min_blocks": 4}, GOOD, None),
        ({"threads": 256, "min_blocks": 5}, GOOD, "5 blocks with 64 registers do not fit"),
        ({"shared_bytes": 163 << 10}, GOOD, None),
        ({"shared_bytes": (163 << 10) + 1}, GOOD, "shared bytes do not fit into 166912"),
        ({"shared_bytes": 81 << 10, "min_blocks": 2}, GOOD, None),
        ({"shared_bytes": 82 << 10, "min_blocks": 2}, GOOD, "2 blocks with 83968 shared bytes"),
    ],
)
def test_each_limit(shape: dict[str, int], facts: gate.Facts, fault: str | None) -> None:
    usual = {"threads": 128, "shared_bytes": 0}
    source = KernelSource("k", lambda: None, (), parameters=(), **{**usual, **shape})
    faults = gate.faults_of(source, SM_80, facts, registers=128)
    assert (faults == []) if fault is None else (len(faults) == 1 and fault in faults[0])


def test_facts_are_kept_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSRV_CACHE_DIR", str(tmp_path / "cache"))
    first = gate.facts_of(specialise(sample_kernels.make_scale, n=2), SM_80)
    monkeypatch.setattr(gate, "_compile", lambda spec, arch: pytest.fail("compiled again"))
    assert gate.facts_of(specialise(sample_kernels.make_scale, n=2), SM_80) == first
    with pytest.raises(pytest.fail.Exception):
        gate.facts_of(specialise(sample_kernels.make_scale, n=3), SM_80)
    monkeypatch.setattr(gate, "_toolchain", lambda: "another compiler")
    with pytest.raises(pytest.fail.Exception):
        gate.facts_of(specialise(sample_kernels.make_scale, n=2), SM_80)


def test_many_kernels_are_compiled_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSRV_CACHE_DIR", str(tmp_path / "cache"))
    specs = [specialise(sample_kernels.make_scale, n=n) for n in (5, 6)]
    gate.prepare(specs, ("sm_80",))
    monkeypatch.setattr(gate, "_compile", lambda spec, arch: pytest.fail("compiled again"))
    monkeypatch.setattr(gate, "ProcessPoolExecutor", lambda *a, **k: pytest.fail("nothing is left to do"))
    gate.prepare(specs, ("sm_80",))
    for spec in specs:
        gate.check(spec, 64, ("sm_80",))


@pytest.mark.timeout(900)  # some seconds for each row where nothing is cached
def test_every_shipped_kernel_passes() -> None:
    """Rows that an architecture ships are compiled for it; a row may use all registers that its launch bounds leave."""
    rows = [(name, spec) for name in ("sm_80", "sm_90a") for spec in variants.shipped(parse_arch(name))]
    for name in ("sm_80", "sm_90a"):
        gate.prepare([spec for arch, spec in rows if arch == name], (name,))
    for name, spec in rows:
        shape = spec.describe()
        gate.check(spec, min(255, 65536 // (shape.threads * shape.min_blocks)), (name,))


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120"])
def test_a_wider_sweep(name: str) -> None:
    """Every head size, both types and all activations, for every architecture that a host may bring."""
    arch = parse_arch(name)
    specs = []
    for dtype in operations.DTYPES:
        # per-lane copies at head_dim 256 need more than 255 registers (16 bytes are spilled); such heads are not in the shipped table
        for dim in (64, 128, 192, 256) if arch.has_bulk_copies else (64, 128, 192):
            specs += [operations.decode_spec(arch, dtype, dim), operations.prefill_spec(arch, dtype, dim)]
            specs += [operations.rope_spec(dtype, dim, norms) for norms in (False, True)]
        specs += [operations.gate_spec(dtype, kind) for kind in ("silu", "gelu", "gelu_tanh")]
        specs += [
            operations.norm_spec(dtype, width, add) for width in (256, 1024, 16384) for add in (False, True)
        ]
    gate.prepare(specs, (name,))
    for spec in specs:
        shape = spec.describe()
        gate.check(spec, min(255, 65536 // (shape.threads * shape.min_blocks)), (name,))


@pytest.mark.parametrize("seed", range(3))
def test_the_simulator_loads_the_same_specs(seed: int) -> None:
    x, out = np.arange(700, dtype=np.float32), np.full(700, np.nan, np.float32)
    kernel = simulated.SimulatedLoader(seed).load(specialise(sample_kernels.make_scale, n=4))
    kernel((2, 1, 1), out.reshape(7, 100), x, 0.5, 699)
    assert np.array_equal(out[:699], x[:699] / 2) and np.isnan(out[699])


@pytest.mark.parametrize(
    "arguments",
    [(0,), (1.5, 1.5), (np.zeros(4), np.zeros(4), 1.0, np.zeros(1)), (np.zeros(4), np.zeros(4), 1.0, 2**31)],
)
def test_the_simulator_refuses_what_does_not_fit(arguments: tuple[Any, ...]) -> None:
    kernel = simulated.SimulatedLoader().load(specialise(sample_kernels.make_scale, n=4))
    with pytest.raises(TypeError):
        kernel((1, 1, 1), *arguments)
