"""Certificates that change while the process runs: each context gets its new chain without a restart.

Model: a context is made of files and keeps its identity; when a file changes (or SIGHUP comes), the files are tried on
a scratch context, and taken only if they are good together. Connections that stand keep what they began with.
Invariant: a broken or half-written file never replaces a chain that works.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

POLL_SECONDS = 2.0

Make = Callable[[], ssl.SSLContext]
"""Makes a context of the files as they are now. Raises OSError."""

log = logging.getLogger(__name__)


class Certificates:
    """Contexts, and the files that they are made of."""

    def __init__(self) -> None:
        self._held: list[_Held] = []

    def add(self, make: Make, certificate: Path, key: Path, authority: Path | None = None) -> ssl.SSLContext:
        """Raises OSError where the files cannot be used now.

        ``authority`` is reloaded too: what is new in it is trusted as well, what was trusted stays so.
        """
        context = make()
        self._held.append(_Held(context, make, certificate, key, authority))
        return context

    def reload(self, *, changed_only: bool = False) -> None:
        """Takes the files as they are now, where they are good."""
        for held in self._held:
            held.reload(changed_only=changed_only)

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.reload(changed_only=True)


class _Held:
    def __init__(
        self, context: ssl.SSLContext, make: Make, certificate: Path, key: Path, authority: Path | None
    ) -> None:
        self._context = context
        self._make = make
        self._certificate = certificate
        self._key = key
        self._authority = authority
        self._state = self._look()

    def reload(self, *, changed_only: bool) -> None:
        state = self._look()
        if changed_only and state == self._state:
            return
        self._state = state
        try:
            self._make()
            self._context.load_cert_chain(self._certificate, self._key)
            if self._authority is not None:
                self._context.load_verify_locations(cafile=self._authority)
        except OSError as error:
            log.error("certificate %s stays as it was loaded: %s", self._certificate, error)
        else:
            log.info("certificate %s is loaded anew", self._certificate)

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes when a file is written or replaced."""
        return tuple(_mark(path) for path in (self._certificate, self._key, self._authority) if path is not None)


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
