"""How to reach etcd: one frozen dataclass, validated once with messages that name the setting."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from distribution_manager.coordination.interface import check_cluster_name
from shadow_nodes.protocol.addresses import parse_peer

CALL_TIMEOUT_S = 2.0
"""What one call of the interface takes at most, with everything that is repeated inside it."""
SESSION_TTL_S = 5
SESSION_TTL_MIN_S = 1
SESSION_TTL_MAX_S = 3600
KEEPALIVE_INTERVAL_MS = 6_000
"""HTTP/2 pings on an otherwise silent connection. etcd drops clients that ping more often than every 5 s."""
KEEPALIVE_TIMEOUT_MS = 2_000
CONNECT_TIMEOUT_MS = 2_000
RECONNECT_WAIT_MIN_MS = 100
RECONNECT_WAIT_MAX_MS = 1_000

assert KEEPALIVE_INTERVAL_MS > 5_000, "etcd's --grpc-keepalive-min-time"


@dataclass(frozen=True)
class EtcdSettings:
    """``endpoints``: host:port each, or a service (``_etcd-client._tcp.example.org``), tried one after the other; names
    are resolved by ``nameservers`` (``ip:port``; none: the system's), and followed when they change.

    ``ca``, ``cert``, ``key``: PEM files. ``ca`` alone verifies etcd, all three are mutual TLS. ``server_name``: the
    name that etcd's certificate must hold, where that is not the endpoint's host (of a service: the target's host).
    ``session_ttl_s``: how
    long leased keys outlive a process that stopped without closing; etcd raises it to one and a half times its election
    timeout.
    """

    cluster: str
    endpoints: tuple[str, ...]
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    call_timeout_s: float = CALL_TIMEOUT_S
    session_ttl_s: int = SESSION_TTL_S
    nameservers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_cluster_name(self.cluster)
        if not self.endpoints:
            raise ValueError("endpoints: name at least one etcd endpoint, as host:port")
        for endpoint in self.endpoints:
            try:
                parse_peer(endpoint)
            except ValueError as error:
                raise ValueError(f"endpoints: {error}") from error
        self._check_tls()
        if bool(self.user) != bool(self.password):
            raise ValueError("user, password: give both or neither")
        if not 0.1 <= self.call_timeout_s <= 60:
            raise ValueError(f"call_timeout_s: {self.call_timeout_s} is not between 0.1 and 60 seconds")
        if not SESSION_TTL_MIN_S <= self.session_ttl_s <= SESSION_TTL_MAX_S:
            bounds = f"{SESSION_TTL_MIN_S} and {SESSION_TTL_MAX_S} seconds"
            raise ValueError(f"session_ttl_s: {self.session_ttl_s} is not between {bounds}")

    def _check_tls(self) -> None:
        if bool(self.cert) != bool(self.key):
            raise ValueError("cert, key: mutual TLS needs both, TLS without client certificates neither")
        if (self.cert or self.server_name) and not self.ca:
            raise ValueError("ca: TLS needs the certificate authority that etcd's certificate is checked against")
        for name, path in (("ca", self.ca), ("cert", self.cert), ("key", self.key)):
            if path is not None and not path.is_file():
                raise ValueError(f"{name}: there is no file {path}")

    @property
    def prefix(self) -> str:
        return f"/shadowq/{self.cluster}/"

    def grpc_options(self, name: str) -> list[tuple[str, int | str]]:
        """``name``: of the host, where an endpoint was found by one."""
        options: list[tuple[str, int | str]] = [
            # A server that froze or a network that went silent ends the connection; the default is to wait for TCP.
            ("grpc.keepalive_time_ms", KEEPALIVE_INTERVAL_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", RECONNECT_WAIT_MIN_MS),
            ("grpc.max_reconnect_backoff_ms", RECONNECT_WAIT_MAX_MS),
            ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),  # in fact the bound on connecting
            ("grpc.max_receive_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
        ]
        if self.ca and (self.server_name or name):
            options.append(("grpc.ssl_target_name_override", self.server_name or name))
        return options
