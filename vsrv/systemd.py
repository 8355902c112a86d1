"""What systemd hands to a service and wants to hear from it: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3), without its library.

Nothing here ever blocks: a manager that does not read its socket must not stop the server.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

from vsrv.errors import ConfigError

_FIRST_FD = 3  # SD_LISTEN_FDS_START


class Notifier:
    """Tells the manager how the service is. Without NOTIFY_SOCKET every call does nothing.

    Takes its variables out of the environment, so that children do not speak for the service.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        path = environ.pop("NOTIFY_SOCKET", "")
        period, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._pending: dict[str, str] = {}
        self._socket: socket.socket | None = None
        self.watchdog_interval_s: float | None = None
        if not self._address:
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        if period.isdigit() and int(period) and pid in ("", str(os.getpid())):
            self.watchdog_interval_s = int(period) / 2e6  # half the period, as sd_watchdog_enabled(3) advises

    def ready(self, status: str) -> None:
        """Start-up, or a reload, is complete."""
        self._send({"READY": "1", "STATUS": status})

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it (Type=notify-reload wants the time)."""
        self._send({"RELOADING": "1", "MONOTONIC_USEC": str(time.monotonic_ns() // 1000)})

    def stopping(self, status: str) -> None:
        self._send({"STOPPING": "1", "STATUS": status})

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send({"STATUS": text.replace("\n", " ")})

    def extend_timeout(self, seconds: float) -> None:
        """Ask for more time to start or to stop, counted from now."""
        self._send({"EXTEND_TIMEOUT_USEC": str(int(seconds * 1e6))})

    def alive(self) -> None:
        """One beat for WatchdogSec=."""
        self._send({"WATCHDOG": "1"})

    def flush(self) -> None:
        """Try again what the manager's full socket did not take."""
        self._send({})

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, fields: dict[str, str]) -> None:
        if self._socket is None:
            return
        self._pending |= fields
        if not self._pending:
            return
        message = "\n".join(f"{name}={value}" for name, value in self._pending.items())
        try:
            self._socket.sendto(message.encode(), self._address)
        except BlockingIOError:
            self._pending.pop("WATCHDOG", None)  # a beat that comes late says nothing
            return
        except OSError:
            self.close()  # the manager is gone, or never was
        self._pending.clear()


def inherited_socket(environ: MutableMapping[str, str]) -> socket.socket | None:
    """The listening socket of socket activation, or None. Raises ConfigError if there are several or it is of another kind."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit() or count == "0":
        return None
    if count != "1":
        raise ConfigError(f"systemd passes {count} sockets; vsrv takes one ListenStream= in its .socket unit")
    try:
        os.set_inheritable(_FIRST_FD, False)
        sock = socket.socket(fileno=_FIRST_FD)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(f"file descriptor 3 of systemd is no socket: {error.strerror}") from None
    if sock.type != socket.SOCK_STREAM or not listens:
        sock.close()
        raise ConfigError("the socket that systemd passes does not listen; use ListenStream= and Accept=no")
    return sock
