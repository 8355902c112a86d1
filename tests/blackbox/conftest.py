"""The server that the black-box tests share; `VSRV_URL` names one that is already up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from started import Server, serving

from vsrv import boot

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The demo model, shared by all tests that do not harm it."""
    url = os.environ.get("VSRV_URL")
    if url:
        given = Server(url.rstrip("/"), None, None)
        given.wait_ready()
        yield given
        return
    with serving() as started:
        yield started


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, built from this checkout. Shared: copy it before you change it."""
    output = tmp_path_factory.mktemp("dist") / "vsrv.pyz"
    build = [sys.executable, str(ROOT / "build_zipapp.py"), "--output", str(output)]
    subprocess.run(build, check=True, timeout=60, stdout=subprocess.DEVNULL)
    return output


@pytest.fixture(scope="session")
def warm_cache(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the CPU's kernels compiled, to start from a copy of it: compiling takes a minute.

    Checkout and archive have the same sources, and so the same kernels; the shared server has compiled them.
    """
    kernels = boot.private_copy("kernels/cpu")
    folder = tmp_path_factory.mktemp("warm") / "vsrv"
    folder.mkdir(mode=0o700)
    shutil.copytree(kernels, folder / kernels.name)
    return folder
