"""Reading a request's body, bounded."""

from __future__ import annotations

import zlib

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from distribution_manager.sqs import errors
from distribution_manager.sqs.errors import SqsError

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def read_body(request: web.BaseRequest, bytes_max: int) -> bytes:
    """The body after transfer and content decoding, which aiohttp does in bounded steps.

    A small body is mostly there already, and costs no waiting. Raises SqsError past the bound.
    """
    content = request.content
    if content.is_eof() and not content.exception():
        body = content.read_nowait() if content.total_bytes else b""
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        if content.at_eof():
            return body
        chunks, size = [body], len(body)
    else:
        chunks, size = [], 0
        await _continue(request)
    length = request.content_length
    if length is not None and length > bytes_max:
        raise _too_large(bytes_max)
    try:
        while chunk := await content.readany():
            size += len(chunk)
            if size > bytes_max:
                raise _too_large(bytes_max)
            chunks.append(chunk)
    except (aiohttp.ClientPayloadError, web.RequestPayloadError, HttpProcessingError, zlib.error) as error:
        raise SqsError(errors.SERIALIZATION, f"The body cannot be decoded: {type(error).__name__}") from error
    return b"".join(chunks)


async def _continue(request: web.BaseRequest) -> None:
    """A bare server leaves ``Expect: 100-continue`` to the handler; an application's router has answered it already."""
    expects = request.headers.get("Expect")
    if expects is not None and expects.lower() == "100-continue" and not isinstance(request, web.Request):
        await request.writer.write(_CONTINUE)
        request.writer.output_size = 0


def _too_large(bytes_max: int) -> SqsError:
    return SqsError(errors.BODY_TOO_LARGE, f"HTTP content length exceeded {bytes_max} bytes.")
