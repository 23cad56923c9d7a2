"""What a node is told when it starts.

Model: text from the command line becomes one frozen NodeSettings and is never looked up again; secrets are named by
file. Invariant: a NodeSettings that exists is valid; otherwise ConfigError says why, the setting's name first.
"""

from __future__ import annotations

import argparse
import re
import ssl
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NoReturn

from shadow_nodes.protocol.addresses import Address, parse_address, parse_dns_servers, parse_peer, parse_peers
from shadow_nodes.protocol.limits import LOG_RETAINED_BYTES_DEFAULT, MIB

NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""Names become parts of etcd keys, file names and metric labels."""
LOG_RETAINED_BYTES_MIN: Final = 1 * MIB
COPY_BYTES_PER_SECOND_DEFAULT: Final = 32 * MIB
COPY_BYTES_PER_SECOND_MIN: Final = 1 * MIB
"""Slower, and a source would give a copier up that takes the largest part it may be sent: see replica_routes.py."""
SECRET_BYTES_MIN: Final = 16
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


class ConfigError(ValueError):
    """A setting is wrong or missing. The message is one line and begins with the setting's name."""


def _about(doc: str, **option: Any) -> dict[str, Any]:
    return {"doc": doc, **option}


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """A shadow node's settings. ``metadata["doc"]`` describes a field, and is its option's help text."""

    region: str = field(metadata=_about("failure domain this node stands in"))
    data: Path = field(metadata=_about("directory of the store, of this node's own", parse=Path))
    node: str = field(
        default="",
        metadata=_about("name of this node, unique in the cluster; it stays with the data (default: a new one)"),
    )
    cluster: str = field(default="shadowq", metadata=_about("name of the cluster; links of any other are refused"))
    listen: Address = field(
        default=Address("127.0.0.1", 7600),
        metadata=_about("host:port to listen on; port 0 takes a free one", parse=parse_address),
    )
    join: tuple[Address, ...] = field(
        default=(),
        metadata=_about(
            "managers of a running cluster, any of them, to announce this node to: host:port of their link-listen, or "
            "the name of an SRV record; comma-separated",
            parse=parse_peers,
        ),
    )
    advertise: Address | None = field(
        default=None,
        metadata=_about(
            "address at which managers and nodes reach this one: host:port, or the name of an SRV record "
            "(default: listen itself)",
            parse=parse_peer,
        ),
    )
    dns_server: tuple[Address, ...] = field(
        default=(),
        metadata=_about("DNS servers, ip or ip:port, comma-separated (default: the system's)", parse=parse_dns_servers),
    )
    log_retained_bytes: int = field(
        default=LOG_RETAINED_BYTES_DEFAULT,
        metadata=_about("per shard: applied log entries kept for catch-up, audit and replay", parse=int),
    )
    copy_bytes_per_second: int = field(
        default=COPY_BYTES_PER_SECOND_DEFAULT,
        metadata=_about("how fast this node copies replicas from other nodes, all together", parse=int),
    )
    secret_file: Path | None = field(
        default=None, metadata=_about("file with the secret that managers and nodes share", parse=Path)
    )
    tls_cert: Path | None = field(default=None, metadata=_about("this node's certificate chain, PEM", parse=Path))
    tls_key: Path | None = field(default=None, metadata=_about("the key of tls-cert, PEM", parse=Path))
    tls_ca: Path | None = field(
        default=None, metadata=_about("authority of the other nodes' certificates, PEM", parse=Path)
    )
    tls_client_ca: Path | None = field(
        default=None, metadata=_about("mutual TLS: only clients with a certificate of this authority", parse=Path)
    )
    log_level: str = field(default="info", metadata=_about("debug, info, warning or error"))

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        for name in ("node", "region", "cluster"):
            value = getattr(self, name) or ("new" if name == "node" else "")
            _require(bool(NAME_PATTERN.fullmatch(value)), name, f"{value!r} is not of the form {NAME_PATTERN.pattern}")
        _require(self.log_level in LOG_LEVELS, "log-level", f"{self.log_level!r} is not one of {', '.join(LOG_LEVELS)}")
        _require(
            self.log_retained_bytes >= LOG_RETAINED_BYTES_MIN,
            "log-retained-bytes",
            f"{self.log_retained_bytes} is less than {LOG_RETAINED_BYTES_MIN}",
        )
        _require(
            not self.join or self.advertise is not None or not self.listen.is_wildcard,
            "advertise",
            f"is needed with join, since nobody can connect to listen {self.listen}",
        )
        _require(
            self.copy_bytes_per_second >= COPY_BYTES_PER_SECOND_MIN,
            "copy-bytes-per-second",
            f"{self.copy_bytes_per_second} is less than {COPY_BYTES_PER_SECOND_MIN}",
        )
        _require((self.tls_cert is None) == (self.tls_key is None), "tls-cert", "goes with tls-key: give both or none")
        _require(self.tls_client_ca is None or self.tls_cert is not None, "tls-client-ca", "needs tls-cert and tls-key")
        _require(self.tls_cert is None or self.tls_ca is not None, "tls-ca", "is needed with tls-cert, to reach nodes")

    def read_secret(self) -> str:
        """ "" where none is set. Raises ConfigError."""
        if self.secret_file is None:
            return ""
        try:
            secret = self.secret_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"secret-file: cannot read {self.secret_file}: {error}") from error
        _require(
            len(secret.encode()) >= SECRET_BYTES_MIN,
            "secret-file",
            f"{self.secret_file} holds less than {SECRET_BYTES_MIN} bytes",
        )
        _require(secret.isascii() and secret.isprintable(), "secret-file", f"{self.secret_file} is not printable ASCII")
        return secret

    def server_tls(self) -> ssl.SSLContext | None:
        """For listening; None for plain TCP. Raises ConfigError."""
        if self.tls_cert is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._load("tls-cert", lambda: context.load_cert_chain(str(self.tls_cert), str(self.tls_key)))
        if self.tls_client_ca is not None:
            self._load("tls-client-ca", lambda: context.load_verify_locations(cafile=str(self.tls_client_ca)))
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_tls(self) -> ssl.SSLContext | None:
        """For copying from other nodes, with this node's certificate shown. Raises ConfigError."""
        if self.tls_cert is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
        self._load("tls-ca", lambda: context.load_verify_locations(cafile=str(self.tls_ca)))
        self._load("tls-cert", lambda: context.load_cert_chain(str(self.tls_cert), str(self.tls_key)))
        return context

    @staticmethod
    def _load(setting: str, load: Any) -> None:
        try:
            load()
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{setting}: cannot be loaded: {error}") from error


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the other commands of ``shadowq`` do."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parse_arguments(arguments: Sequence[str]) -> NodeSettings:
    """Raises ConfigError; leaves the process for --help and for options that do not exist, as argparse does."""
    parser = _Parser(prog="shadowq node", description="A ShadowQ node: holds replicas of queues.")
    for item in fields(NodeSettings):
        parser.add_argument(f"--{item.name.replace('_', '-')}", metavar="X", help=item.metadata["doc"])
    given = {name: text for name, text in vars(parser.parse_args(arguments)).items() if text is not None}
    values: dict[str, Any] = {}
    for item in fields(NodeSettings):
        option = item.name.replace("_", "-")
        if item.name in given:
            try:
                values[item.name] = item.metadata.get("parse", str)(given[item.name])
            except ValueError as error:
                raise ConfigError(f"{option}: {error}") from error
        elif item.default is MISSING:
            raise ConfigError(f"{option}: is missing; give --{option}")
    return NodeSettings(**values)


def _require(condition: bool, setting: str, problem: str) -> None:
    if not condition:
        raise ConfigError(f"{setting}: {problem}")
