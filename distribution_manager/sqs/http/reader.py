"""Bytes in, requests out: HTTP/1.1 as RFC 9112 has it, without sockets or time.

Model: llhttp (by way of httptools) finds the parts; the reader puts requests together and bounds them.
Invariant: any split of the same bytes gives the same requests, and nobody who read them before us (a proxy) can have
seen a request end elsewhere: what frames a body in two ways, or in none that is known, ends the reading. llhttp, in its
strict mode, refuses bare LF and CR, folded lines, repeated, signed or listed lengths, a length beside a transfer
coding; the rest is refused here. tests/unit/distribution_manager/sqs/http/test_reader.py has them all.
"""

from __future__ import annotations

import httptools

from distribution_manager.sqs.http.messages import Headers, Problem, Request

HEAD_BYTES_MAX = 32 * 1024
"""Of a request's head, and of bytes in a row that bring no part of a body: trailers, chunk extensions. Up to twice as
many may pass, as they are counted by what is fed at a time."""
TOO_LARGE = 413
"""The one problem that does not end the reading: where the body ends is known."""


class BadRequestError(Exception):
    """Nothing can be read any more. ``request``: whose body it was in, where its head had been understood."""

    def __init__(self, problem: Problem, request: Request | None) -> None:
        super().__init__(problem.reason)
        self.problem = problem
        self.request = request


class RequestReader:
    """``body_bytes_max``: the body of a request past it is dropped as it comes, and the request has a problem.

    ``complete``: requests that are all there, in order; whoever takes them empties the list.
    ``partial``: one whose head is there and whose body is not, or None.
    """

    def __init__(self, body_bytes_max: int) -> None:
        self.complete: list[Request] = []
        self.partial: Request | None = None
        self._body_bytes_max = body_bytes_max
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._body = bytearray()
        self._barren_bytes = 0
        """Read since a request, or a part of a body, was last found."""
        self._framing_only = False
        """The parser reads a body whose head another parser has read."""
        self._ended = False

    def feed(self, data: bytes | memoryview) -> None:
        """At most HEAD_BYTES_MAX at a time. Raises BadRequestError; what was complete before stays in ``complete``.

        After a request that asks for the connection's end, nothing is read.
        """
        rest: bytes | memoryview | None = data
        while rest is not None and not self._ended:
            rest = self._feed(rest)

    def _feed(self, data: bytes | memoryview) -> bytes | memoryview | None:
        """What is behind an upgrade: for the next parser. Raises BadRequestError."""
        self._barren_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade()
            return data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if self._ended:  # what follows a request that ends the connection
                return None
            request = self.partial
            problem = request.problem if request is not None else None
            raise BadRequestError(problem or Problem(400, f"This is no HTTP request: {error}."), request) from error
        if self._barren_bytes > HEAD_BYTES_MAX:
            raise BadRequestError(Problem(431, f"A request's head has at most {HEAD_BYTES_MAX} bytes."), self.partial)
        return None

    # --- called by the parser --------------------------------------------------------------------------------------

    def on_url(self, part: bytes) -> None:
        if not self._framing_only:
            self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.partial is None:  # else it is a trailer, which means nothing here
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        self._barren_bytes = 0
        if self._framing_only:
            return
        parser = self._parser
        headers = Headers(self._fields)
        target = self._target.decode("latin-1")
        if not target.startswith("/"):
            target = _origin_form(target)
        version = parser.get_http_version()
        request = Request(parser.get_method().decode(), target, headers, version, keep_alive=parser.should_keep_alive())
        self.partial = request
        self._target, self._fields = b"", []
        request.problem = self._problem_of(headers, version)
        if request.problem is not None and request.problem.status != TOO_LARGE:
            raise ValueError(request.problem.reason)  # ends the parser, and comes out of feed as BadRequestError

    def on_body(self, part: bytes) -> None:
        self._barren_bytes = 0
        request = self.partial
        assert request is not None, "a body follows a head"
        if request.problem is not None:
            return
        if len(request.body) + len(self._body) + len(part) > self._body_bytes_max:
            request.problem = self._too_large()
            request.body = b""
            self._body = bytearray()
        elif not request.body:
            request.body = part
        else:
            self._body += part

    def on_message_complete(self) -> None:
        request = self.partial
        if request is None or (self._parser.should_upgrade() and _has_body(request)):
            return
        if self._body:
            request.body += self._body
            self._body = bytearray()
        self._barren_bytes = 0
        self._framing_only = False
        self._ended = not request.keep_alive
        self.partial = None
        self.complete.append(request)

    # --- what llhttp leaves to us ----------------------------------------------------------------------------------

    def _problem_of(self, headers: Headers, version: str) -> Problem | None:
        if version not in ("1.1", "1.0"):
            return Problem(400, f"HTTP/{version} is not understood: HTTP/1.1 is.")
        hosts = len(headers.getall("host")) if "host" in headers else 0
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            return Problem(400, "A request has one Host header.")
        coding = headers.get("transfer-encoding")
        if coding is not None:
            if version == "1.0":
                return Problem(400, "HTTP/1.0 has no Transfer-Encoding.")
            if coding.lower() != "chunked":
                return Problem(501, "Transfer-Encoding: only chunked is understood.")
        length = headers.get("content-length")
        if length is not None and length.isdigit() and int(length) > self._body_bytes_max:
            return self._too_large()
        return None

    def _too_large(self) -> Problem:
        return Problem(TOO_LARGE, f"HTTP content length exceeded {self._body_bytes_max} bytes.")

    def _go_on_without_upgrade(self) -> None:
        """The client would like to upgrade (Java's HttpClient, to HTTP/2), which may be passed over (RFC 9110, 7.8).

        llhttp believes that another protocol begins behind the head; so a new parser, told how the body is framed.
        """
        self._parser = httptools.HttpRequestParser(self)
        request = self.partial
        if request is not None and _has_body(request):
            self._framing_only = True
            length = request.headers.get("content-length")
            framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
            self._parser.feed_data(f"POST / HTTP/1.1\r\n{framing}\r\n\r\n".encode())


def _has_body(request: Request) -> bool:
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0").strip("0") != ""


def _origin_form(target: str) -> str:
    """Of the absolute form, which servers must take (RFC 9112, 3.2.2). ``*`` and anything else stays."""
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return target
    authority_end = min((rest.find(mark) for mark in "/?" if mark in rest), default=len(rest))
    path = rest[authority_end:]
    return path if path.startswith("/") else f"/{path}"
