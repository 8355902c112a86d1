"""The kernels that an archive ships compiled (`build_zipapp.py --cubins`): one table, at most 24 rows for each architecture.

A host with another GPU, model shape or data type compiles at load, with the same result some seconds later; so this table holds what most
models need and no more, at about 30 KB a row and architecture. tests/cuda holds every row to the compile gate.
"""

from __future__ import annotations

from vsrv.kernels.cuda.source import Arch, KernelSpec

MOST_ROWS = 24

# A row is `specialise(make_xxx, parameter=value, …)`: exactly the parameters that the code which launches the kernel passes, since an
# equal spec is what finds the cubin.
EVERYWHERE: tuple[KernelSpec, ...] = ()
WITH_BULK_COPIES: tuple[KernelSpec, ...] = ()  # sm_90 and later
WITHOUT_BULK_COPIES: tuple[KernelSpec, ...] = ()  # sm_80 to sm_89


def shipped(arch: Arch) -> tuple[KernelSpec, ...]:
    """The rows for one architecture."""
    return EVERYWHERE + (WITH_BULK_COPIES if arch.has_bulk_copies else WITHOUT_BULK_COPIES)
