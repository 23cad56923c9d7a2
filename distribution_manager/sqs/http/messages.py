"""Requests and responses, as the application sees them."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple, Protocol

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_BODILESS_METHOD = "HEAD"


class Headers(dict[str, str]):
    """By name in lower case; of a name that was sent more than once, the first value.

    Bytes that are no UTF-8 are surrogates (PEP 383), so that a signature can be made of what was sent.
    """

    __slots__ = ("_repeated",)

    def __init__(self, fields: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__()
        self._repeated: dict[str, list[str]] | None = None
        for name, value in fields:
            key = name.decode("latin-1").lower()
            text = value.decode("utf-8", "surrogateescape").rstrip(" \t")
            if key in self:
                self._repeat(key, text)
            else:
                self[key] = text

    def _repeat(self, key: str, text: str) -> None:
        if self._repeated is None:
            self._repeated = {}
        self._repeated.setdefault(key, [self[key]]).append(text)

    def getall(self, name: str) -> list[str]:
        """All values of a name, in order. Raises KeyError where there is none."""
        if self._repeated is not None and name in self._repeated:
            return self._repeated[name]
        return [self[name]]


class ClientConnection(Protocol):
    """``transport`` is None once it is closed."""

    @property
    def transport(self) -> object | None: ...


class Problem(NamedTuple):
    """Why a request is refused before the application sees it. ``status``: 400, 408, 413, 431 or 501."""

    status: int
    reason: str


class Request:
    """``path`` and ``query`` are still percent-encoded; ``body`` is as it was sent, compressed or not.

    ``connection``: the same object for all requests of a connection; None where there is none, as in tests.
    ``problem``: set where the head is understood, but the request is not to be served.
    """

    __slots__ = (
        "body",
        "connection",
        "headers",
        "keep_alive",
        "method",
        "path",
        "problem",
        "query",
        "remote",
        "secure",
        "version",
    )

    def __init__(
        self, method: str, target: str, headers: Headers, version: str = "1.1", *, keep_alive: bool = True
    ) -> None:
        self.method = method
        self.version = version
        self.path, _, self.query = target.partition("?")
        self.headers = headers
        self.keep_alive = keep_alive
        self.body = b""
        self.problem: Problem | None = None
        self.connection: ClientConnection | None = None
        self.remote = ""
        self.secure = False

    @property
    def scheme(self) -> str:
        return "https" if self.secure else "http"


class Response:
    """``headers``: without Content-Length, Date and Connection, which are the server's. ``body``: all of it."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.body = body
        self.headers = headers
        self.status = status

    def encode(self, method: str, server_lines: str) -> bytes:
        """``server_lines``: whole header lines. A HEAD is answered without the body."""
        lines = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        head = f"{_STATUS_LINES[self.status]}{lines}{server_lines}Content-Length: {len(self.body)}\r\n\r\n".encode()
        return head if method == _BODILESS_METHOD else head + self.body
