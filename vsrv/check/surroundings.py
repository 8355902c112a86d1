"""Keys, certificates, addresses and limits of a configuration, looked at one by one: `serve` would stop at the first."""

from __future__ import annotations

import errno
import os
import resource
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vsrv.check.finding import Finding, failed
from vsrv.config import ServeConfig, is_loopback
from vsrv.errors import ConfigError
from vsrv.keyfile import KeyRecord, read_key_file
from vsrv.listening import SPARE_FDS, asks_for_certificates, tls_files
from vsrv.options import EXPIRY_WARN_DAYS

_MAX_PORTS_TRIED = 100


def keys(config: ServeConfig) -> list[Finding]:
    """Which keys there are, and which of them work today."""
    path, given = config.get("api-key-file"), config.get("api-key")
    if not path and not given:
        if config.get("uds") or is_loopback(config.get("host")):
            return [Finding("keys", "ok", "none: only this machine reaches the server")]
        return [
            Finding(
                "keys",
                "warning",
                "none: everybody who reaches the port may use the model",
                "--api-key-file FILE",
            )
        ]
    found = [Finding("keys", "ok", f"{len(given)} by --api-key")] if given else []
    if path:
        try:
            records = read_key_file(Path(path)).keys
            found.append(_key_file(path, records))
            named = [record.id for record in records if record.client_cert]
            if named and not asks_for_certificates(config):
                message = f"{path} names client certificates ({named[0]}), which nobody is asked for"
                found.append(Finding("keys", "warning", message, "--ssl-ca-certs FILE --ssl-cert-reqs 1"))
        except ConfigError as error:
            found.append(failed("keys", error, "--api-key-file FILE"))
    return found


def _key_file(path: str, records: tuple[KeyRecord, ...]) -> Finding:
    now = datetime.now(UTC)
    states = [record.state(now) for record in records]
    soon = [
        record.id
        for record, state in zip(records, states, strict=True)
        if state == "active"
        and record.expires is not None
        and record.expires - now < timedelta(days=EXPIRY_WARN_DAYS)
    ]
    text = f"{path}: {states.count('active')} active, {states.count('expired')} expired, {states.count('revoked')} revoked"
    if not states.count("active"):
        return Finding("keys", "warning", text, f"vsrv keys new --api-key-file {path}")
    if soon:
        message = f"{text}; within {EXPIRY_WARN_DAYS} days expires {', '.join(soon)}"
        return Finding("keys", "warning", message, f"vsrv keys rotate {soon[0]} --api-key-file {path}")
    return Finding("keys", "ok", text)


def certificate(config: ServeConfig) -> list[Finding]:
    """Whether TLS would come up, for which names and for how long."""
    if bool(config.get("ssl-certfile")) != bool(config.get("ssl-keyfile")):
        return []  # half a pair: the settings' own check has said so
    if not config.get("ssl-certfile"):
        if config.get("uds") or is_loopback(config.get("host")):
            return [Finding("TLS", "ok", "off")]
        message = "off: keys and prompts cross the network in the clear, unless a proxy in front does it"
        return [Finding("TLS", "warning", message, "--ssl-certfile FILE --ssl-keyfile FILE")]
    from vsrv.http.tls import certificate_names, server_context, validity

    files = tls_files(config)
    try:
        server_context(files)
        (start, end), names = validity(files.certfile), certificate_names(files.certfile)
    except ConfigError as error:
        return [failed("TLS", error, "--ssl-certfile FILE --ssl-keyfile FILE")]
    now = time.time()
    days = (end - now) / 86400
    text = f"{files.certfile} for {', '.join(names) or 'no name'}, valid until {time.strftime('%Y-%m-%d', time.gmtime(end))}"
    if days < 0:
        return [Finding("TLS", "error", f"{text}: it has expired", "--ssl-certfile FILE")]
    if start > now:
        begins = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(start))
        message = f"{files.certfile} is not valid before {begins}: is the clock right?"
        return [Finding("TLS", "error", message, "--ssl-certfile FILE")]
    found = [Finding("TLS", "warning" if days < EXPIRY_WARN_DAYS else "ok", text)]
    if os.stat(files.keyfile).st_mode & 0o077:
        message = f"{files.keyfile} can be read by others than its owner"
        found.append(Finding("TLS", "warning", message, f"chmod 600 {files.keyfile}"))
    return found


def addresses(config: ServeConfig) -> list[Finding]:
    """Whether the server could listen where it is told to."""
    if config.get("uds"):
        return [_unix_socket(Path(config.get("uds")))]
    found = [_port(config.get("host").strip("[]"), config.get("port"), "--port")]
    if config.get("metrics-port"):
        found.append(_port(config.get("host").strip("[]"), config.get("metrics-port"), "--metrics-port"))
    return found


def _unix_socket(path: Path) -> Finding:
    if path.exists() and not path.is_socket():
        return Finding("address", "error", f"{path} is there and is no socket", "--uds PATH")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return Finding("address", "error", f"{path.parent} cannot be written", "--uds PATH")
    return Finding("address", "ok", f"unix:{path}")


def _port(host: str, port: int, option: str) -> Finding:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror:
        return Finding("address", "error", f"{host} is no address of this machine", "--host 127.0.0.1")
    problem = _cannot_bind(family, address)
    if problem is None:
        which = f"port {port} is free" if port else "any port that is free"
        return Finding("address", "ok", f"{host} {which}")
    if problem.errno == errno.EADDRNOTAVAIL:
        return Finding("address", "error", f"{host} is no address of this machine", "--host 127.0.0.1")
    other = next(
        (
            p
            for p in range(max(port, 1023) + 1, 65536)[:_MAX_PORTS_TRIED]
            if _cannot_bind(family, (address[0], p, *address[2:])) is None
        ),
        None,
    )
    fix = f"{option} {other}" if other else f"{option} N"
    if problem.errno == errno.EADDRINUSE:
        holder = _holder(port)
        if holder.startswith("process 1 "):
            message = f"{host} port {port} is held by systemd: right for a service behind a socket unit, which does not bind it itself"
            return Finding("address", "warning", message)
        return Finding(
            "address", "error", f"{host} port {port} is in use{f' by {holder}' if holder else ''}", fix
        )
    return Finding("address", "error", f"{host} port {port}: {problem.strerror}", fix)


def _cannot_bind(family: int, address: tuple[object, ...]) -> OSError | None:
    """Bind and let go again, as the server would: REUSEADDR lets a port through that is only waiting out old connections."""
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
            sock.listen(1)
        except OSError as error:
            return error
    return None


def _holder(port: int) -> str:
    """ "process 17 (nginx)" that listens on a TCP port, if /proc lets us see it."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(fd) in inodes for fd in (folder / "fd").iterdir()):
                return f"process {folder.name} ({(folder / 'comm').read_text().strip()})"
        except OSError:
            continue  # another user's process, or one that has just ended
    return ""


def _listening_inodes(port: int) -> list[str]:
    """proc(5), /proc/net/tcp: the second field is address:port in hex, the fourth 0A for a listener, the tenth the inode."""
    inodes = []
    for name in ("tcp", "tcp6"):
        try:
            rows = Path("/proc/net", name).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.append(fields[9])
    return inodes


def limits(config: ServeConfig) -> list[Finding]:
    """Whether the system allows as many connections as are configured."""
    connections = config.get("max-connections")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < connections + SPARE_FDS:
        message = f"{hard} open files are allowed, {connections} connections need {connections + SPARE_FDS}"
        return [Finding("limits", "warning", message, f"--max-connections {max(1, hard - SPARE_FDS)}")]
    return [Finding("limits", "ok", f"{connections} connections at once")]
