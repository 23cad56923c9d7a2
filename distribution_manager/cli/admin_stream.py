"""Streams of JSON lines from the managers' admin API, gone on with from another manager where one is lost."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from distribution_manager.drills.state import ClusterError

SILENCE_S: Final = 30.0
"""A manager that sends nothing for this long is given up: a living stream has empty lines."""
ROUNDS_MAX: Final = 5
ROUND_S: Final = 1.0
"""All managers are asked this often, this far apart, before it is said that none answers."""

Record = dict[str, Any]


class Endpoint(NamedTuple):
    """A manager's link listener; ``tls`` None: plain HTTP."""

    host: str
    port: int
    secret: str
    tls: ssl.SSLContext | None = None

    def connect(self) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=SILENCE_S)
        return http.client.HTTPSConnection(self.host, self.port, timeout=SILENCE_S, context=self.tls)


class StreamEnded(ClusterError):
    """Before its end."""


class AdminStream:
    """``unanswered``: what to say where no manager answers."""

    def __init__(self, endpoints: Iterable[Endpoint], method: str, path: str, unanswered: str) -> None:
        self._endpoints = list(endpoints)
        self._method = method
        self._path = path
        self._why = unanswered

    def read(self, query: Record, go_on: Callable[[Record, Record], Record]) -> Iterator[Record]:
        """Every record, up to the "end" or "failed" one. ``go_on``: what to ask next after each record.

        Raises ClusterError where a manager refuses, StreamEnded where none answers.
        """
        fruitless = 0
        while fruitless < ROUNDS_MAX:
            fruitless += 1
            for endpoint in self._endpoints:
                with contextlib.suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
                    for record in self._one(endpoint, query):
                        query = go_on(query, record)
                        fruitless = 0
                        yield record
                        if record["type"] in {"end", "failed"}:
                            return
            time.sleep(ROUND_S)
        raise StreamEnded(self._why)

    def _one(self, endpoint: Endpoint, query: Record) -> Iterator[Record]:
        connection = endpoint.connect()
        try:
            headers = {"Authorization": f"Bearer {endpoint.secret}"} if endpoint.secret else {}
            connection.request(self._method, f"{self._path}?{urlencode(query)}", headers=headers)
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                body = response.read().decode(errors="replace")
                self._why = json.loads(body)["error"] if body.startswith("{") else body.strip()
                if response.status < http.HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise ClusterError(self._why)
                return
            for line in response:
                if line.endswith(b"\n") and line.strip():
                    yield json.loads(line)
        except ssl.SSLError as error:
            self._why = (
                f"{endpoint.host}:{endpoint.port}: {error.reason or error}: look at --tls-ca, --tls-cert, --tls-key"
            )
            raise
        finally:
            connection.close()
