"""What a manager is told when it starts.

Model: settings come in once, as text from the command line or as values from Python, become one frozen ManagerConfig,
and are never looked up again. Secrets are named by file, so that no process list shows them.
Invariant: a ManagerConfig that exists is valid; what is wrong with one that cannot exist is a ConfigError of one line
that begins with the setting's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from distribution_manager.core.limits import HEAL_AFTER_MS_DEFAULT
from shadow_nodes.protocol.addresses import Address, parse_address, parse_dns_servers, parse_peer, parse_peers
from shadow_nodes.protocol.limits import MIB

NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""Names of managers, nodes, regions and clusters: they become parts of etcd keys, file names and metric labels."""
ACCOUNT_PATTERN: Final = re.compile(r"[0-9]{12}")
LEASE_TTL_S_MIN: Final = 2
LEASE_TTL_S_MAX: Final = 600
REQUEST_BYTES_MAX_MIN: Final = 2 * MIB
PERCENT_MAX: Final = 99
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("json", "text")


class ConfigError(ValueError):
    """A setting is wrong or missing. The message is one line and begins with the setting's name."""


def _parse_names(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _about(doc: str, parse: Callable[[str], object] = str) -> dict[str, Any]:
    return {"doc": doc, "parse": parse}


@dataclass(frozen=True, kw_only=True)
class ManagerConfig:
    """A Distribution Manager's settings. A field's ``metadata["doc"]`` describes it, and is its option's help text."""

    # who it is
    name: str = field(metadata=_about("this manager's name, unique in the cluster"))
    region: str = field(metadata=_about("the region (failure domain) it runs in"))
    cluster: str = field(
        default="shadowq",
        metadata=_about("the cluster's name; etcd keys lie under it, and strangers are refused by it"),
    )

    # where it listens, and what others are told
    listen: Address = field(
        default=Address("127.0.0.1", 9324), metadata=_about("host:port for SQS clients", parse_address)
    )
    link_listen: Address = field(
        default=Address("127.0.0.1", 9424),
        metadata=_about("host:port for other managers, the admin API and metrics", parse_address),
    )
    advertise_link: Address | None = field(
        default=None,
        metadata=_about(
            "address at which other managers and joining nodes reach link-listen: host:port, or the name of an SRV "
            "record (default: link-listen itself)",
            parse_peer,
        ),
    )
    advertise_endpoint: str | None = field(
        default=None,
        metadata=_about("URL at which clients reach this very manager, shown by status (default: made from listen)"),
    )
    public_url: str | None = field(
        default=None,
        metadata=_about("URL that queue URLs begin with, the same for all regions (default: the Host of each request)"),
    )
    arn_region: str = field(
        default="us-east-1",
        metadata=_about("the region that queue ARNs name, the same for all managers, as a queue lives in several"),
    )
    account_id: str = field(default="000000000000", metadata=_about("the 12-digit account id in queue URLs and ARNs"))

    # etcd
    etcd: tuple[Address, ...] = field(
        metadata=_about(
            "etcd's client endpoints, comma-separated: host:port, or the name of an SRV record such as "
            "_etcd-client._tcp.example.org",
            parse_peers,
        )
    )
    etcd_ca: Path | None = field(
        default=None, metadata=_about("certificate authority (PEM) that signed etcd's certificates; turns TLS on", Path)
    )
    etcd_cert: Path | None = field(default=None, metadata=_about("certificate (PEM) to show to etcd", Path))
    etcd_key: Path | None = field(default=None, metadata=_about("key (PEM) of etcd-cert", Path))
    etcd_server_name: str | None = field(
        default=None, metadata=_about("the name in etcd's certificate, where it is not the endpoint's host")
    )
    etcd_user: str | None = field(default=None, metadata=_about("etcd user name"))
    etcd_password_file: Path | None = field(default=None, metadata=_about("file with the etcd user's password", Path))
    lease_ttl_s: int = field(
        default=10, metadata=_about("seconds after which a silent manager leaves the registry", int)
    )

    # nodes
    nodes: tuple[Address, ...] = field(
        default=(),
        metadata=_about(
            "nodes that this manager introduces to the cluster, comma-separated: host:port, or the name of an SRV "
            "record whose targets are nodes; nodes that join by themselves need not be named",
            parse_peers,
        ),
    )
    dns_server: tuple[Address, ...] = field(
        default=(),
        metadata=_about("DNS servers, ip or ip:port, comma-separated (default: the system's)", parse_dns_servers),
    )
    secret_file: Path | None = field(
        default=None, metadata=_about("file with the secret that managers and nodes share", Path)
    )

    link_tls_cert: Path | None = field(
        default=None,
        metadata=_about("certificate chain (PEM) shown to nodes and managers; turns mutual TLS on for all links", Path),
    )
    link_tls_key: Path | None = field(default=None, metadata=_about("key (PEM) of link-tls-cert", Path))
    link_tls_ca: Path | None = field(
        default=None, metadata=_about("authority (PEM) of the certificates of nodes and managers", Path)
    )

    # healing
    heal_after_s: int = field(
        default=HEAL_AFTER_MS_DEFAULT // 1000,
        metadata=_about("seconds until a replica whose node is out of reach is replaced on another; 0: never", int),
    )

    # clients
    tls_cert: Path | None = field(
        default=None, metadata=_about("certificate chain (PEM) of the client endpoint; turns HTTPS on", Path)
    )
    tls_key: Path | None = field(default=None, metadata=_about("key (PEM) of tls-cert", Path))
    require_auth: bool = field(
        default=False, metadata=_about("refuse client requests that are not signed with a known access key", bool)
    )
    allow_anonymous: bool = field(
        default=False,
        metadata=_about(
            "serve unsigned requests on an address that is not loopback: only where the network keeps strangers out",
            bool,
        ),
    )

    keys_file: Path | None = field(
        default=None,
        metadata=_about("access keys from this file (JSON, read again when it changes) instead of from etcd", Path),
    )
    key_encryption_file: Path | None = field(
        default=None, metadata=_about("file under which the secrets of access keys in etcd are encrypted", Path)
    )
    signing_regions: tuple[str, ...] = field(
        default=(), metadata=_about("regions that signatures may name, comma-separated (default: any)", _parse_names)
    )
    key_requests_per_second: int = field(
        default=0, metadata=_about("requests per second of an access key that sets no limit of its own; 0: any", int)
    )
    key_connections_max: int = field(
        default=0, metadata=_about("connections of an access key that sets no limit of its own; 0: any", int)
    )
    connections_max: int = field(default=10_000, metadata=_about("connections of all clients together", int))
    request_bytes_max: int = field(default=8 * MIB, metadata=_about("bytes of a request's body, decompressed", int))
    head_timeout_s: int = field(
        default=10, metadata=_about("seconds until a new connection's first request head is there", int)
    )
    body_timeout_s: int = field(default=60, metadata=_about("seconds until a request's body is there", int))
    idle_timeout_s: int = field(default=75, metadata=_about("seconds without a request, then a connection ends", int))
    name_reuse_s: int = field(
        default=0,
        metadata=_about("seconds after DeleteQueue for which this manager refuses to create the name again", int),
    )

    # promotion: docs/promotion.md
    promotion_message_rate: int = field(
        default=0, metadata=_about("messages per second from which on a shadow may be promoted; 0: never", int)
    )
    promotion_ack_latency_ms: int = field(
        default=0, metadata=_about("the same of the 99th percentile of acknowledgements, milliseconds", int)
    )
    promotion_cpu_percent: int = field(
        default=85, metadata=_about("the same of the processor of the primary's node; 0: never", int)
    )
    promotion_disk_free_percent: int = field(
        default=10, metadata=_about("the same of its free disk, when it is less; 0: never", int)
    )
    promotion_window_s: int = field(
        default=60, metadata=_about("seconds over which load is taken, and the step of forecasts", int)
    )
    promotion_after_s: int = field(default=120, metadata=_about("seconds for which load must be over a threshold", int))
    promotion_horizon_s: int = field(default=600, metadata=_about("seconds ahead for which load is forecast", int))
    promotion_cooldown_s: int = field(
        default=900, metadata=_about("seconds for which a promoted queue stays where it is", int)
    )
    promotions_max: int = field(
        default=2, metadata=_about("promotions at a time in the whole cluster, operators' own apart", int)
    )
    failback_after_s: int = field(
        default=300, metadata=_about("seconds for which a preferred region must have been well for its queues", int)
    )

    # logs
    log_level: str = field(default="info", metadata=_about("debug, info, warning or error"))
    log_format: str = field(default="json", metadata=_about("json (one object a line) or text"))

    def __post_init__(self) -> None:
        self._check_identity()
        self._check_addresses()
        self._check_etcd()
        self._check_clients()
        self._check_access()
        self._check_promotion()
        self._check_choice("log_level", LOG_LEVELS)
        self._check_choice("log_format", LOG_FORMATS)

    @classmethod
    def from_text(cls, values: Mapping[str, str | bool | None]) -> ManagerConfig:
        """From settings as text, by field name; None means not given. Raises ConfigError."""
        settings: dict[str, Any] = {}
        for setting in fields(cls):
            text = values.get(setting.name)
            if text is None:
                if setting.default is MISSING:
                    raise ConfigError(f"{_option(setting.name)}: is needed: {setting.metadata['doc']}")
                continue
            try:
                settings[setting.name] = setting.metadata["parse"](text)
            except ValueError as error:
                raise ConfigError(f"{_option(setting.name)}: {error}") from error
        return cls(**settings)

    @property
    def scheme(self) -> str:
        return "https" if self.tls_cert else "http"

    @property
    def endpoint(self) -> str:
        """The URL under which this manager is registered for clients."""
        return self.advertise_endpoint or f"{self.scheme}://{self.listen}"

    @property
    def link_address(self) -> Address:
        """The address under which this manager is registered for other managers."""
        return self.advertise_link or self.link_listen

    def secret(self) -> bytes | None:
        """The shared secret; None where none is set. Raises ConfigError."""
        return _read_secret("secret_file", self.secret_file)

    def etcd_password(self) -> str | None:
        """Raises ConfigError."""
        password = _read_secret("etcd_password_file", self.etcd_password_file)
        return None if password is None else password.decode()

    def _check_identity(self) -> None:
        for name in ("name", "region", "cluster", "arn_region"):
            value = getattr(self, name)
            if not NAME_PATTERN.fullmatch(value):
                raise ConfigError(
                    f"{_option(name)}: {value!r} is not a name: 1 to 63 letters, digits, '.', '_' and '-', "
                    "a letter or digit first"
                )
        if not ACCOUNT_PATTERN.fullmatch(self.account_id):
            raise ConfigError(f"account-id: {self.account_id!r} is not 12 digits")

    def _check_addresses(self) -> None:
        if self.listen == self.link_listen and self.listen.port:
            raise ConfigError(f"link-listen: {self.link_listen} is taken by listen: choose another port")
        if self.link_listen.is_wildcard and self.advertise_link is None:
            raise ConfigError(f"advertise-link: is needed, since nobody can connect to link-listen {self.link_listen}")
        for name, peers in (("advertise-link", [self.advertise_link]), ("nodes", self.nodes), ("etcd", self.etcd)):
            for peer in peers:
                if peer is not None and not peer.is_connectable:
                    raise ConfigError(f"{name}: {peer} cannot be connected to")
        if self.listen.is_wildcard and self.advertise_endpoint is None:
            raise ConfigError(f"advertise-endpoint: is needed, since no client can connect to listen {self.listen}")
        for name in ("advertise_endpoint", "public_url"):
            url = getattr(self, name)
            if url is not None:
                _check_url(_option(name), url)

    def _check_etcd(self) -> None:
        if not self.etcd:
            raise ConfigError("etcd: needs at least one host:port")
        if (self.etcd_cert is None) != (self.etcd_key is None):
            raise ConfigError("etcd-cert: goes with etcd-key: give both or neither")
        if self.etcd_ca is None and (self.etcd_cert is not None or self.etcd_server_name is not None):
            raise ConfigError("etcd-ca: is needed with etcd-cert and etcd-server-name")
        if (self.etcd_user is None) != (self.etcd_password_file is None):
            raise ConfigError("etcd-user: goes with etcd-password-file: give both or neither")
        if not LEASE_TTL_S_MIN <= self.lease_ttl_s <= LEASE_TTL_S_MAX:
            raise ConfigError(f"lease-ttl-s: {self.lease_ttl_s} is not within {LEASE_TTL_S_MIN} to {LEASE_TTL_S_MAX}")
        for name in ("etcd_ca", "etcd_cert", "etcd_key", "etcd_password_file", "secret_file"):
            self._check_file(name)

    def _check_access(self) -> None:
        for name in ("link_tls_cert", "link_tls_key", "link_tls_ca", "keys_file", "key_encryption_file"):
            self._check_file(name)
        if len({self.link_tls_cert is None, self.link_tls_key is None, self.link_tls_ca is None}) > 1:
            raise ConfigError("link-tls-cert: goes with link-tls-key and link-tls-ca: give all or none")
        if not self.require_auth and (self.keys_file or self.key_encryption_file or self.signing_regions):
            raise ConfigError("require-auth: is needed with keys-file, key-encryption-file and signing-regions")
        if not (self.secret_file or self.link_tls_cert or self.allow_anonymous or self.link_listen.is_loopback):
            raise ConfigError(
                f"link-listen: {self.link_listen} is not loopback, and would be open to strangers: "
                "set secret-file or link-tls-cert, or allow-anonymous where the network keeps strangers out"
            )
        for name in ("key_requests_per_second", "key_connections_max", "name_reuse_s", "heal_after_s"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{_option(name)}: must not be negative")
        for name in ("connections_max", "head_timeout_s", "body_timeout_s", "idle_timeout_s"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{_option(name)}: must be at least 1")
        if self.request_bytes_max < REQUEST_BYTES_MAX_MIN:
            raise ConfigError(f"request-bytes-max: must be at least {REQUEST_BYTES_MAX_MIN}, for messages of 1 MiB")

    def _check_promotion(self) -> None:
        for name in ("message_rate", "ack_latency_ms", "cpu_percent", "disk_free_percent", "cooldown_s"):
            if getattr(self, f"promotion_{name}") < 0:
                raise ConfigError(f"{_option(f'promotion_{name}')}: must not be negative")
        for name in ("promotion_cpu_percent", "promotion_disk_free_percent"):
            if getattr(self, name) > PERCENT_MAX:
                raise ConfigError(f"{_option(name)}: must be at most {PERCENT_MAX}")
        for name in ("promotion_window_s", "promotion_after_s", "promotions_max", "failback_after_s"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{_option(name)}: must be at least 1")
        if self.promotion_horizon_s < self.promotion_window_s:
            raise ConfigError(
                f"promotion-horizon-s: {self.promotion_horizon_s} is less than promotion-window-s, a forecast's step"
            )

    def _check_clients(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("tls-cert: goes with tls-key: give both or neither")
        self._check_file("tls_cert")
        self._check_file("tls_key")
        if not (self.require_auth or self.allow_anonymous or self.listen.is_loopback):
            raise ConfigError(
                f"listen: {self.listen} is not loopback, and requests would be served unsigned: "
                "set require-auth, or allow-anonymous where the network keeps strangers out"
            )

    def _check_file(self, name: str) -> None:
        path: Path | None = getattr(self, name)
        if path is not None and not path.is_file():
            raise ConfigError(f"{_option(name)}: there is no file {path}")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise ConfigError(f"{_option(name)}: {value!r} is not one of {', '.join(choices)}")


def _option(name: str) -> str:
    return name.replace("_", "-")


def _check_url(name: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise ConfigError(f"{name}: {url!r} is not a URL such as https://queues.example.com")


def _read_secret(name: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"{_option(name)}: {path} cannot be read: {error.strerror}") from error
    if not secret:
        raise ConfigError(f"{_option(name)}: {path} is empty")
    return secret
