"""Reading a request's body, bounded before and after decompression."""

from __future__ import annotations

import asyncio
import zlib

import aiohttp
from aiohttp import web

from distribution_manager.sqs import errors
from distribution_manager.sqs.errors import SqsError

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WBITS = 31


async def read_body(request: web.BaseRequest, bytes_max: int, seconds_max: float) -> bytes:
    """The body as it was sent (and signed): still compressed, where it is. Raises SqsError past the bounds.

    A small body is mostly there already, and costs no waiting.
    """
    content = request.content
    if content.is_eof() and content.exception() is None:
        body = content.read_nowait() if content.total_bytes else b""
        if not content.at_eof():
            body += await _read_rest(request, bytes_max - len(body), seconds_max)
    else:
        await _continue(request)
        body = await _read_rest(request, bytes_max, seconds_max)
    if len(body) > bytes_max:
        raise _too_large(bytes_max)
    return body


def decompressed(request: web.BaseRequest, body: bytes, bytes_max: int) -> bytes:
    """Raises SqsError past the bound, and where it cannot be done. No other encoding than gzip is known.

    A server of ``make_server`` leaves this to us: aiohttp would drop the connection over a damaged body. On a route
    aiohttp has done it; then nothing begins like gzip any more.
    """
    if body.startswith(_GZIP_MAGIC) and "gzip" in request.headers.get("Content-Encoding", "").lower():
        return _decompress(body, bytes_max)
    return body


async def _read_rest(request: web.BaseRequest, bytes_max: int, seconds_max: float) -> bytes:
    """May exceed the bound by what one read brings; then no more is read."""
    length = request.content_length
    if length is not None and length > bytes_max:
        raise _too_large(bytes_max)
    chunks, size = [], 0
    try:
        async with asyncio.timeout(seconds_max):
            while size <= bytes_max and (chunk := await request.content.readany()):
                size += len(chunk)
                chunks.append(chunk)
    except TimeoutError as error:
        raise SqsError(errors.REQUEST_TIMEOUT, f"The body took more than {seconds_max:g} s to come.") from error
    except (aiohttp.ClientPayloadError, web.RequestPayloadError) as error:
        raise SqsError(errors.SERIALIZATION, f"The body cannot be read: {type(error).__name__}") from error
    return b"".join(chunks)


def _decompress(body: bytes, bytes_max: int) -> bytes:
    decompressor = zlib.decompressobj(wbits=_GZIP_WBITS)
    try:
        plain = decompressor.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise SqsError(errors.SERIALIZATION, f"The body is not gzip: {error}") from error
    if len(plain) > bytes_max:
        raise _too_large(bytes_max)
    if not decompressor.eof or decompressor.unused_data:
        raise SqsError(errors.SERIALIZATION, "The body is not one whole gzip stream.")
    return plain


async def _continue(request: web.BaseRequest) -> None:
    """A bare server leaves ``Expect: 100-continue`` to the handler; an application's router has answered it already."""
    expects = request.headers.get("Expect")
    if expects is not None and expects.lower() == "100-continue" and not isinstance(request, web.Request):
        await request.writer.write(_CONTINUE)
        request.writer.output_size = 0


def _too_large(bytes_max: int) -> SqsError:
    return SqsError(errors.BODY_TOO_LARGE, f"HTTP content length exceeded {bytes_max} bytes.")
