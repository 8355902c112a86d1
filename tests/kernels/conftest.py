from __future__ import annotations

from collections.abc import Iterator

import pytest

from vsrv import kernels as kernel_package
from vsrv.kernels import Kernels


@pytest.fixture(scope="session", params=[1, 2], ids=["1 thread", "2 threads"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    loaded = kernel_package.load("cpu", request.param)
    yield loaded
    loaded.close()
