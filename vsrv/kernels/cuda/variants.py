"""The kernels that an archive ships compiled (`build_zipapp.py --cubins`): one table, at most 24 rows for each architecture.

A host with another GPU, model shape or data type compiles at load, with the same result some seconds later; so this table holds what most
models need and no more, at about 30 KB a row and architecture. tests/cuda holds every row to the compile gate.
"""

from __future__ import annotations

from vsrv.kernels.cuda import operations as ops
from vsrv.kernels.cuda.source import Arch, KernelSpec

MOST_ROWS = 24
_WIDTHS = (2048, 4096, 8192)  # each stands for all hidden sizes up to it and above the one before


def shipped(arch: Arch) -> tuple[KernelSpec, ...]:
    """The rows for one architecture: bfloat16 for head_dim 64 and 128, float16 for 128, and what both share."""
    rows = [ops.plan_spec(), *ops.SamplingVariant().specs()]
    for dtype, dims in (("bfloat16", (64, 128)), ("float16", (128,))):
        for dim in dims:
            rows += [ops.decode_spec(arch, dtype, dim), ops.prefill_spec(arch, dtype, dim)]
            rows.append(ops.rope_spec(dtype, dim, norms=False))
        rows.append(ops.gate_spec(dtype, "silu"))
    rows.append(ops.rope_spec("bfloat16", 128, norms=True))
    rows += [ops.norm_spec("bfloat16", width, add) for width in _WIDTHS for add in (False, True)]
    rows += [ops.norm_spec("float16", 4096, add) for add in (False, True)]
    return tuple(rows)
