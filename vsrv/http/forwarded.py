"""Who the client is when a reverse proxy stands before the server: X-Forwarded-For, believed from trusted proxies only."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from vsrv.errors import ConfigError

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TrustedProxies:
    """Addresses and networks whose X-Forwarded-For is believed; "unix" stands for the peers of a Unix socket, "*" for everybody."""

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        words = [word.strip() for text in trusted for word in text.split(",")]  # uvicorn's form has commas
        self._everybody = "*" in words
        self._unix = "unix" in words
        self._networks: list[_Network] = []
        for text in words:
            if text in ("*", "unix"):
                continue
            try:
                self._networks.append(ipaddress.ip_network(text, strict=False))
            except ValueError:
                raise ConfigError(
                    f"--forwarded-allow-ips {text}: expected an address, a network such as 10.0.0.0/8, unix or *"
                ) from None

    def client(self, peer: str, forwarded: str | None) -> str:
        """The nearest address that no trusted proxy has; `forwarded` is the X-Forwarded-For header.

        Each proxy appends the address it was called from, so the list is read from its end and only as far as it is trusted.
        """
        nearest = peer
        if forwarded is None or not self._is_trusted(peer):
            return nearest
        for word in reversed(forwarded.split(",")):
            address = _address(word.strip())
            if address is None:
                return nearest
            nearest = address
            if not self._is_trusted(address):
                return nearest
        return nearest

    def _is_trusted(self, peer: str) -> bool:
        if self._everybody:
            return True
        if peer == "unix":
            return self._unix
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return any((mapped or address) in network for network in self._networks)


def _address(word: str) -> str | None:
    """One member of the list, with or without a port → the address, or None if it is none."""
    if word.startswith("["):
        word = word[1:].partition("]")[0]
    elif word.count(":") == 1:
        word = word.partition(":")[0]
    if "%" in word:
        return None  # the zone of an IPv6 address may be any text, and means nothing on another host
    try:
        return str(ipaddress.ip_address(word))
    except ValueError:
        return None
