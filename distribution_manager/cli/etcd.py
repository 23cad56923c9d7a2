"""Commands that work on etcd itself, without a manager: their options, and a connection of their own."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from distribution_manager.cli.arguments import DATA_DEFAULT
from distribution_manager.config import ConfigError
from distribution_manager.coordination.etcd import EtcdCoordination
from distribution_manager.coordination.etcd_settings import EtcdSettings
from distribution_manager.drills.state import load_state
from shadow_nodes.protocol.addresses import Address, parse_dns_servers, parse_peers

T = TypeVar("T")


def add_etcd_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help=f"a local cluster's data directory (default: {DATA_DEFAULT})"
    )
    parser.add_argument("--etcd", metavar="X", help="instead: etcd's client endpoints, as of shadowq manager")
    parser.add_argument("--cluster", default="shadowq", metavar="X", help="with --etcd: the cluster's name")
    for option in ("ca", "cert", "key", "password-file"):
        parser.add_argument(f"--etcd-{option}", type=Path, metavar="FILE", help="as of shadowq manager")
    parser.add_argument("--etcd-user", default="", metavar="X", help="as of shadowq manager")
    parser.add_argument("--dns-server", default="", metavar="X", help="as of shadowq manager")


def with_etcd(options: argparse.Namespace, work: Callable[[EtcdCoordination], Awaitable[T]]) -> T:
    """Runs ``work`` against the etcd that ``add_etcd_options`` has named. Raises ConfigError, ShadowQError."""
    settings = _settings(options)

    async def run() -> T:
        etcd = EtcdCoordination(settings)
        await etcd.start()
        try:
            return await work(etcd)
        finally:
            await etcd.close()

    return asyncio.run(run())


def _settings(options: argparse.Namespace) -> EtcdSettings:
    """Raises ConfigError."""
    if options.etcd is None:
        data = options.data or DATA_DEFAULT
        state = load_state(data)
        if state is None:
            raise ConfigError(f"data: {data} holds no cluster: name one with --data, or etcd with --etcd and --cluster")
        return EtcdSettings(state.cluster, (str(Address("127.0.0.1", state.members["etcd"].ports["client"])),))
    try:
        endpoints = tuple(map(str, parse_peers(options.etcd)))
        nameservers = tuple(map(str, parse_dns_servers(options.dns_server)))
        password = ""
        if options.etcd_password_file is not None:
            password = options.etcd_password_file.read_text().strip()
        return EtcdSettings(
            options.cluster,
            endpoints,
            ca=options.etcd_ca,
            cert=options.etcd_cert,
            key=options.etcd_key,
            user=options.etcd_user,
            password=password,
            nameservers=nameservers,
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"etcd: {error}") from error
