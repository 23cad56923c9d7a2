"""Where somebody is to be found: ``host:port``, or the name of a service.

Model: a host is a name or an IP address (IPv6 in brackets). An address that begins with an underscore, such as
``_shadowq._tcp.example.org``, is a service: its SRV records (RFC 2782) name the hosts and ports.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple

PORT_MAX: Final = 65535
DNS_PORT: Final = 53
_SERVICE: Final = re.compile(r"_[A-Za-z0-9-]+(\.[A-Za-z0-9_-]+)+\.?")


class Address(NamedTuple):
    """A host name or IP address, and a TCP port; or a service, with port 0. ``str()`` gives it as it is written."""

    host: str
    port: int

    def __str__(self) -> str:
        if self.is_service:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_service(self) -> bool:
        return self.host.startswith("_")

    @property
    def is_loopback(self) -> bool:
        return self.host == "localhost" or (is_literal(self.host) and ipaddress.ip_address(self.host).is_loopback)

    @property
    def is_wildcard(self) -> bool:
        """Fit for listening on, useless for connecting to."""
        return self.host in ("", "0.0.0.0", "::")

    @property
    def is_connectable(self) -> bool:
        return self.is_service or (self.port > 0 and not self.is_wildcard)


def parse_address(text: str) -> Address:
    """``host:port`` or ``[ipv6]:port``. Raises ValueError."""
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or not port.isascii() or not port.isdigit() or (":" in host and not bracketed):
        raise ValueError(f"{text!r} is not host:port")
    if int(port) > PORT_MAX:
        raise ValueError(f"{text!r} has a port above {PORT_MAX}")
    return Address(host, int(port))


def parse_peer(text: str) -> Address:
    """Where to connect to: ``host:port``, ``[ipv6]:port`` or ``_service._tcp.domain``. Raises ValueError."""
    name = text.strip()
    if _SERVICE.fullmatch(name):
        return Address(name, 0)
    if name.startswith("_"):
        raise ValueError(f"{text!r} is not the name of a service, such as _shadowq._tcp.example.org")
    address = parse_address(text)
    if not address.is_connectable:
        raise ValueError(f"{address} cannot be connected to")
    return address


def parse_peers(text: str) -> tuple[Address, ...]:
    """Peers separated by commas. Raises ValueError."""
    return tuple(parse_peer(part) for part in text.split(",") if part.strip())


def parse_dns_servers(text: str) -> tuple[Address, ...]:
    """``ip``, ``ip:port`` or ``[ipv6]:port``, separated by commas. Raises ValueError."""
    return tuple(_parse_dns_server(part.strip()) for part in text.split(",") if part.strip())


def _parse_dns_server(text: str) -> Address:
    address = Address(text, DNS_PORT) if is_literal(text) else parse_address(text)
    if not is_literal(address.host) or not address.port:
        raise ValueError(f"{text!r} is not the IP address of a DNS server, with or without a port")
    return address


def is_literal(host: str) -> bool:
    """Whether it is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
