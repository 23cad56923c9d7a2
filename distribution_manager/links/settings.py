"""What all links of a manager have in common."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from shadow_nodes.protocol.bearer import bearer_headers
from shadow_nodes.protocol.frames import WAITING_BYTES_MAX_DEFAULT
from shadow_nodes.protocol.limits import SILENCE_BOUND_MS

DIAL_SECONDS_MAX = 3.0
"""For one address, from the first packet to the Welcome: a handful of round trips across an ocean."""
BACKOFF_SECONDS_START = 0.02
BACKOFF_SECONDS_MAX = 0.5
STEADY_SECONDS = 1.0
"""A link that lasted this long is redialled with the shortest pause."""
PROBE_SECONDS = 3.0
"""A link on which nothing came for this long is probed with a WebSocket ping, and dropped after half as long again:
only a peer that vanished without closing its connections needs it."""

assert BACKOFF_SECONDS_START < BACKOFF_SECONDS_MAX < DIAL_SECONDS_MAX
assert PROBE_SECONDS * 1000 > SILENCE_BOUND_MS, "a frozen peer is to be seen silent, not closed"


AtTurnEnd = Callable[[Callable[[], None]], object]
"""Does something at the end of the loop turn; links send their frames so. Without one it is the loop's call_soon."""


@dataclass(frozen=True)
class LinkSettings:
    """``secret``: sent to, and asked of, every peer. ``client_tls``, ``server_tls``: None for plain TCP."""

    secret: str = ""
    client_tls: ssl.SSLContext | None = None
    waiting_bytes_max: int = WAITING_BYTES_MAX_DEFAULT

    @property
    def scheme(self) -> str:
        return "ws" if self.client_tls is None else "wss"

    @property
    def headers(self) -> dict[str, str]:
        return bearer_headers(self.secret)


def client_tls(ca_file: str, certificate_file: str = "", key_file: str = "") -> ssl.SSLContext:
    """Trusts ``ca_file`` only; shows the certificate, where given, to peers that ask for one. Raises OSError."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca_file)
    if certificate_file:
        context.load_cert_chain(certificate_file, key_file or None)
    return context


def server_tls(certificate_file: str, key_file: str, client_ca_file: str = "") -> ssl.SSLContext:
    """With ``client_ca_file`` only clients with a certificate of that authority may connect. Raises OSError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate_file, key_file)
    if client_ca_file:
        context.load_verify_locations(cafile=client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
