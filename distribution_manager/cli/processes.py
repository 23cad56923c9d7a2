"""``shadowq node|manager``: this process becomes one shadow node, or one Distribution Manager."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, fields
from typing import Any, Final, NoReturn

from distribution_manager.cli.arguments import fail
from distribution_manager.config import ConfigError, ManagerConfig
from shadow_nodes.resolve import Resolver

ETCD_WAIT_S: Final = 5.0
ETCD_POLL_S: Final = 0.1


def add_commands(commands: Any) -> None:
    """``commands``: argparse's, of ``shadowq``."""
    commands.add_parser("node", help="run one shadow node: see shadowq node --help", add_help=False)
    manager = commands.add_parser(
        "manager", help="run one Distribution Manager", description="One Distribution Manager."
    )
    manager.set_defaults(run=run_manager_process)
    _add_settings(manager)


def run_node(arguments: Sequence[str]) -> NoReturn:
    """Becomes the node's process: its pid, its signals and its exit status are the node's own."""
    os.execv(sys.executable, [sys.executable, "-m", "shadow_nodes", *arguments])


def run_manager_process(options: argparse.Namespace) -> int:
    config = ManagerConfig.from_text(vars(options))
    asyncio.run(_reach_etcd(config))
    from distribution_manager.runtime import run_manager  # noqa: PLC0415 - the other commands need none of it

    try:
        well = _event_loop_runner()(run_manager(config))
    except OSError as error:
        return fail(f"{error.strerror or error}: choose other addresses with --listen and --link-listen")
    return 0 if well else fail("this manager failed, see its log: start it again")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """An option for each field of ManagerConfig; reading and checking them is left to ManagerConfig.from_text."""
    for setting in fields(ManagerConfig):
        option = f"--{setting.name.replace('_', '-')}"
        text = setting.metadata["doc"]
        if setting.default is False:
            parser.add_argument(option, dest=setting.name, action="store_true", help=text)
            continue
        if setting.default is not MISSING and setting.default not in (None, ()):
            text = f"{text} (default: {setting.default})"
        parser.add_argument(option, dest=setting.name, metavar="X", help=text.replace("%", "%%"))


async def _reach_etcd(config: ManagerConfig) -> None:
    """A manager that runs waits for an etcd that went away; one that starts should say that it sees none."""
    resolver = Resolver(tuple(map(str, config.dns_server)))
    try:
        async with asyncio.timeout(ETCD_WAIT_S):
            while True:
                if await _any_listens(resolver, map(str, config.etcd)):
                    return
                await asyncio.sleep(ETCD_POLL_S)
    except TimeoutError:
        where = ", ".join(map(str, config.etcd))
        raise ConfigError(f"etcd: cannot be reached at {where}: start it, or name its endpoints with --etcd") from None
    finally:
        await resolver.close()


async def _any_listens(resolver: Resolver, addresses: Iterable[str]) -> bool:
    for address in addresses:
        with contextlib.suppress(OSError, TimeoutError):
            for endpoint in await resolver.resolve(address):
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(ETCD_WAIT_S / 2):
                        _, writer = await asyncio.open_connection(endpoint.ip, endpoint.port)
                    writer.close()
                    return True
    return False


def _event_loop_runner() -> Any:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.run
    return uvloop.run
