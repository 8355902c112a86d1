"""Random tiny models made by transformers, and one-sequence batches for the model under test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vsrv import kernels as kernel_package
from vsrv.kernels import Kernels


@pytest.fixture(scope="session")
def kernels() -> Iterator[Kernels]:
    loaded = kernel_package.load("cpu", 2)
    yield loaded
    loaded.close()
