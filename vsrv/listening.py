"""What the front binds before it does anything else: sockets, file descriptors, certificates, and who may reach them (rule R22)."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from vsrv.config import ServeConfig, is_loopback
from vsrv.errors import ConfigError

if TYPE_CHECKING:
    from vsrv.http.tls import TlsFiles, TlsKeeper

SPARE_FDS = 256  # beside the connections: engine, prepare child, model files, log


def check_exposure(config: ServeConfig, sock: socket.socket) -> None:
    """Rule R22 for a socket that systemd bound: --host says nothing about it."""
    if sock.family == socket.AF_UNIX or is_loopback(sock.getsockname()[0]):
        return
    if not has_keys(config) and not config.get("allow-unauthenticated"):
        raise ConfigError(
            f"the socket of systemd on {sock.getsockname()[0]} can be reached by others and no key is set: "
            "give --api-key or --allow-unauthenticated"
        )


def asks_for_certificates(config: ServeConfig) -> bool:
    """Whether clients are asked for a certificate that can be verified."""
    return bool(config.get("ssl-certfile") and config.get("ssl-ca-certs") and config.get("ssl-cert-reqs"))


def has_keys(config: ServeConfig) -> bool:
    return bool(config.get("api-key") or config.get("api-key-file"))


def raise_file_limit(connections: int) -> None:
    """Room for every connection that --max-connections allows, as far as the hard limit lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FDS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def listen(config: ServeConfig) -> socket.socket:
    """A bound, listening socket. Raises ConfigError naming --port, --host or --uds."""
    path = config.get("uds")
    if path:
        sock = socket.socket(socket.AF_UNIX)
        try:
            if Path(path).is_socket():
                Path(path).unlink()  # left behind by a server that was killed
            mask = os.umask(0o177)
            try:
                sock.bind(path)
            finally:
                os.umask(mask)
        except OSError as error:
            raise ConfigError(f"--uds {path}: {error.strerror}") from None
    else:
        host, port = config.get("host").strip("[]"), config.get("port")
        try:
            family, _, _, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except socket.gaierror:
            raise ConfigError(f"--host {host} is no address of this machine") from None
        except OSError as error:
            hint = (
                "another program uses it; choose another --port or stop that one"
                if error.errno == 98
                else error.strerror
            )
            raise ConfigError(f"cannot listen on --host {host} --port {port}: {hint}") from None
    sock.listen(2048)
    sock.setblocking(False)
    return sock


def listen_for_metrics(config: ServeConfig) -> socket.socket | None:
    """The listening socket of --metrics-port, if there is one. Raises ConfigError."""
    host, port = config.get("host").strip("[]"), config.get("metrics-port")
    if not port:
        return None
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family, backlog=16)
    except OSError as error:
        raise ConfigError(f"cannot listen on --host {host} --metrics-port {port}: {error.strerror}") from None
    sock.setblocking(False)
    return sock


def tls_keeper(config: ServeConfig) -> TlsKeeper | None:
    if not config.get("ssl-certfile"):
        return None
    from vsrv.http.tls import TlsKeeper

    return TlsKeeper(tls_files(config))


def tls_files(config: ServeConfig) -> TlsFiles:
    """What the --ssl-* options say, for a configuration with TLS."""
    from vsrv.http.tls import TlsFiles

    return TlsFiles(
        config.get("ssl-certfile"),
        config.get("ssl-keyfile"),
        config.get("ssl-keyfile-password"),
        config.get("ssl-ca-certs"),
        config.get("ssl-cert-reqs"),
        config.get("ssl-ciphers"),
    )
