"""A server of one's own for the time of a batch: `vsrv serve` on a Unix socket in a private folder, ended with the batch."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from vsrv.archive import inherited
from vsrv.boot import child_command, die_with_parent
from vsrv.client.http import ProtocolError, Target
from vsrv.errors import ConfigError

_POLL_S = 0.2
_STOP_S = 60.0


@contextlib.contextmanager
def instance(arguments: Sequence[str], key: str = "") -> Iterator[Target]:
    """A ready server. `arguments` are those of `vsrv serve`; it writes its warnings to our stderr, and asks for `key` if there is one.

    Raises ConfigError when it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="vsrv-batch-") as folder:
        path = str(Path(folder) / "socket")
        quiet = (
            [] if any(word.startswith("--log-level") for word in arguments) else ["--log-level", "warning"]
        )
        environ = {
            **os.environ,
            **({"VSRV_API_KEY": key} if key else {}),
        }  # not in its command line, which anybody can read
        process = subprocess.Popen(
            [*child_command("serve"), *arguments, *quiet, "--uds", path],
            env=environ,
            pass_fds=inherited(),
            preexec_fn=die_with_parent,
        )
        try:
            target = Target.of(f"unix:{path}", key)
            _wait_ready(process, target)
            yield target
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_ready(process: subprocess.Popen[bytes], target: Target) -> None:
    """As long as it loads; how long that may take is --engine-load-timeout. Raises ConfigError."""
    while not _is_ready(process, target):
        if process.poll() is not None:
            raise ConfigError(
                f"the server ended with exit status {process.returncode}; its messages are above"
            )
        time.sleep(_POLL_S)


def _is_ready(process: subprocess.Popen[bytes], target: Target) -> bool:
    try:
        return asyncio.run(_status(target)) == 200
    except OSError:
        return False  # not listening yet
    except ProtocolError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
            return False  # it ended just then
        message = "the server of its own speaks no HTTP (--ssl-certfile?): start it apart and give --url"
        raise ConfigError(message) from None


async def _status(target: Target) -> int:
    async with target.request("GET", "/readyz") as reply:
        return reply.status
