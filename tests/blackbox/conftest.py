"""The server that the black-box tests share; `VSRV_URL` names one that is already up."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from started import Server, start


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The demo model, shared by all tests that do not harm it."""
    url = os.environ.get("VSRV_URL")
    if url:
        given = Server(url.rstrip("/"), None, None)
        given.wait_ready()
        yield given
        return
    started = start()
    try:
        started.wait_ready()
        yield started
    finally:
        if started.process is not None and started.process.poll() is None:
            started.stop()
