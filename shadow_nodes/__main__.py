"""``python -m shadow_nodes --region R --data DIR [--node NAME] [--cluster C] [--listen HOST:PORT] ...``"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import uvloop

from shadow_nodes.collector import Collector
from shadow_nodes.config import ConfigError, NodeSettings, parse_arguments
from shadow_nodes.logs import log_to_stderr
from shadow_nodes.naming import settle_name
from shadow_nodes.protocol.errors import ShadowQError
from shadow_nodes.server import NodeServer
from shadow_nodes.storage.directory import DirectoryInUseError
from shadow_nodes.storage.sqlite import SqliteStore, open_or_replace

log = logging.getLogger("shadow_nodes")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status. Whatever stops a node from starting is one line on stderr."""
    try:
        settings = settle_name(parse_arguments(sys.argv[1:] if arguments is None else arguments))
        log_to_stderr(settings.log_level, node=settings.node, region=settings.region)
        uvloop.run(_serve(settings))
    except ConfigError as error:
        return _refuse(str(error))
    except _CannotStartError as error:
        return _refuse(str(error))
    return 0


def _refuse(reason: str) -> int:
    print(f"shadowq node: {reason}", file=sys.stderr)
    return 1


class _CannotStartError(Exception):
    """The message says what to do."""


async def _serve(settings: NodeSettings) -> None:
    """Until SIGTERM or SIGINT. Raises ConfigError, _CannotStartError."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    store, replaced = _open(settings)
    if replaced:
        log.error("the store was damaged and is replaced by an empty one, with a new incarnation: %s", replaced)
    try:
        server = NodeServer(settings, store, _die, replaced or "")
    except ConfigError:
        store.close()
        raise
    except (ShadowQError, OSError) as error:
        raise _CannotStartError(
            f"data: the store in {settings.data} cannot be loaded: {error}; "
            "move the directory away to begin as a new, empty node"
        ) from error
    try:
        await server.start()
    except OSError as error:
        await server.stop()
        raise _CannotStartError(
            f"listen: cannot listen on {settings.listen}: {error.strerror or error}; "
            "stop what uses the port, or give another --listen"
        ) from error
    except ConfigError:
        await server.stop()
        raise
    Collector().start()
    log.info("listening on %s, port %d, incarnation %s", settings.listen.host, server.port, store.incarnation)
    await stopping.wait()
    log.info("stopping")
    await server.stop()
    log.info("stopped")


def _open(settings: NodeSettings) -> tuple[SqliteStore, str | None]:
    """Raises _CannotStartError."""
    try:
        return open_or_replace(settings.data)
    except DirectoryInUseError as error:
        raise _CannotStartError(f"data: {error}; stop that process, or give another --data") from error
    except (ShadowQError, OSError) as error:
        raise _CannotStartError(
            f"data: cannot open the store in {settings.data}: {error}; check the directory's disk and permissions"
        ) from error


def _die(error: BaseException) -> NoReturn:
    """At once and without tidying up: nothing that is in memory may be told to anyone any more."""
    try:
        log.critical("this node stops: its store or state is in doubt: %r", error, exc_info=error)
        sys.stderr.flush()
    finally:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
