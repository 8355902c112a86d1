"""Tensors in a part of a file, against the safetensors library; and the demo model's, where they lie in the archive."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from vsrv.models.mapped import MappedTensors

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)


def test_tensors_are_what_the_library_wrote(tmp_path: Path) -> None:
    tensors = {str(d): torch.arange(6).reshape(2, 3).to(d) for d in DTYPES}
    tensors |= {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 4)}
    data = save(tensors, {"format": "pt"})
    (tmp_path / "file").write_bytes(b"before" + data + b"after")
    with open(tmp_path / "file", "rb") as file:
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    read = MappedTensors(whole[6 : 6 + len(data)])
    assert set(read.keys()) == set(tensors)
    for name, tensor in tensors.items():
        assert read.get_tensor(name).dtype == tensor.dtype and torch.equal(read.get_tensor(name), tensor), (
            name
        )


@pytest.mark.parametrize("data", [b"", b"\xff" * 16, b"\x02" + bytes(7) + b"{", b"\x04" + bytes(7) + b"{..}"])
def test_what_is_no_safetensors_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        MappedTensors(memoryview(data))


@pytest.mark.parametrize("offsets", ["[0, 80]", "[-8, 0]", "[0, 4]", "[8, 0]"])
def test_a_tensor_outside_of_the_file_is_refused(offsets: str) -> None:
    header = f'{{"t": {{"dtype": "F32", "shape": [2], "data_offsets": {offsets}}}}}'.encode()
    data = len(header).to_bytes(8, "little") + header + bytes(8)
    with pytest.raises(ValueError, match="tensor t lies outside"):
        MappedTensors(memoryview(data)).get_tensor("t")


IN_PLACE = """
import sys
sys.path.insert(0, sys.argv[1])
from vsrv import archive, demo
from vsrv.models.weights import Checkpoint
archive.pin()
folder = demo.model_path()
assert not list(folder.glob("*.safetensors")), "copied"
checkpoint = Checkpoint(folder)
from safetensors import safe_open
theirs = safe_open(sys.argv[2], "pt")
pointers = []
for name in theirs.keys():
    expected = theirs.get_tensor(name)
    tensor = checkpoint.tensor(name, tuple(expected.shape))
    assert tensor.equal(expected), name
    pointers.append(tensor.data_ptr())
assert min(pointers) % 4096 == 0
tensor.add_(1)  # a map without copy-on-write would end the process here
print("in place")
"""


def test_the_demo_models_weights_are_used_in_place(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parent.parent.parent
    archive = tmp_path / "vsrv.pyz"
    build = [sys.executable, str(root / "build_zipapp.py"), "--output", str(archive)]
    subprocess.run(build, check=True, timeout=60, stdout=subprocess.DEVNULL)
    weights = root / "vsrv" / "demo" / "model.safetensors"
    done = subprocess.run(
        [sys.executable, "-P", "-c", IN_PLACE, str(archive), str(weights)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={"VSRV_CACHE_DIR": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout == "in place\n", done.stderr
