"""The simulated device refuses what a GPU would punish later: wrong sizes, kinds and grids, reads behind a tensor's end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import simulator
import torch
from simulated import SimulatedDevice, SimulatedLaunch, memory

from vsrv.kernels.cuda.source import KernelSource


def doubling(ops: Any) -> KernelSource:
    cuda = ops.cuda

    def kernel(values, count):  # type: ignore[no-untyped-def]
        place = cuda.threadIdx.x
        if place < count:
            values[place] = values[place] * 2

    return KernelSource("doubling", kernel, ("*f32", "i32"), 32, 0, ())


def test_kernels_change_the_tensors_they_are_given() -> None:
    device, launch = SimulatedDevice(), SimulatedLaunch()
    values = device.zeros((4, 8), "float32")
    device.upload(values, np.arange(32, dtype=np.float32).reshape(4, 8))
    launch(doubling(simulator), (1, 1, 1), (values[1:3, :5], 13))
    expected = torch.arange(32.0).view(4, 8)
    expected.view(-1)[8:21] *= 2
    assert torch.equal(values, expected)
    assert launch.launches == [("doubling", (1, 1, 1))] and device.num_uploads == 1
    assert values.data_ptr() % 256 == 0
    assert memory(values[1:3, :5], np.float32).shape == (13,)


def test_mistakes_are_refused() -> None:
    device, launch = SimulatedDevice(), SimulatedLaunch()
    values = device.zeros((4, 8), "float32")
    source = doubling(simulator)
    with pytest.raises(IndexError):
        launch(source, (1, 1, 1), (values[1:3, :5], 14))
    for arguments in (
        (values,),
        (values, 2.5),
        (values, 2**31),
        (device.zeros((4,), "bfloat16"), 3),
        (values, None),
    ):
        with pytest.raises(TypeError):
            launch(source, (1, 1, 1), arguments)
    with pytest.raises(ValueError, match="grid"):
        launch(source, (1, 0, 1), (values, 1))
    with pytest.raises(ValueError, match="upload"):
        device.upload(values, np.zeros(31, np.float32))
    with pytest.raises(ValueError, match="upload"):
        device.upload(values[:, :5], np.zeros((4, 5), np.float32))
