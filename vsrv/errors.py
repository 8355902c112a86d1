"""The exception tree. Only `UserError` text ever reaches a client; everything else is logged and answered with a fixed text.

Floor 0: standard library only. Raised everywhere, rendered by the dialects in `api/` and by `cli.py`.
"""

from __future__ import annotations

EXIT_CONFIG = 78  # of every process that a ConfigError ends; EX_CONFIG of sysexits.h
EXIT_UNAVAILABLE = 69  # of a client's that found no server; EX_UNAVAILABLE


class VsrvError(Exception):
    """Root of every exception that vsrv raises on purpose."""


class UserError(VsrvError):
    """A request that cannot be served as asked; the message is written for the client and safe to send.

    status: HTTP status (4xx or 503). code: stable machine-readable string such as `context_length_exceeded`.
    param: name of the offending request field or None. retry_after_s: sent as `Retry-After` when not None.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class EngineError(VsrvError):
    """The engine cannot take or finish a request (loading, stalled, dead); becomes a 503 at the HTTP seam."""

    def __init__(self, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s


class ConfigError(VsrvError):
    """The configuration or the model folder cannot be served; the message names the flag that fixes it. Exit status 78.

    remedy: words that could go on the command line and would help, such as `--max-model-len 4096`; empty where there are none.
    """

    exit_status = EXIT_CONFIG

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class NoServerError(ConfigError):
    """Nobody answers at the address that a client was given. Exit status 69: a script may try again."""

    exit_status = EXIT_UNAVAILABLE


class UnsupportedModelError(ConfigError):
    """An architecture, quantisation or file format that vsrv refuses; the message says what is supported."""


class FrameError(VsrvError):
    """A frame on the engine or prepare socket is malformed, too large or of another protocol version."""
