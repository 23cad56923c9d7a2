"""A request's body, decompressed and bounded."""

from __future__ import annotations

import zlib

from distribution_manager.sqs import errors
from distribution_manager.sqs.errors import SqsError
from distribution_manager.sqs.http.messages import Request

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WBITS = 31


def decompressed(request: Request, bytes_max: int) -> bytes:
    """Raises SqsError past the bound, and where it cannot be done. No other encoding than gzip is known."""
    body = request.body
    if body.startswith(_GZIP_MAGIC) and "gzip" in request.headers.get("content-encoding", "").lower():
        return _decompress(body, bytes_max)
    return body


def _decompress(body: bytes, bytes_max: int) -> bytes:
    decompressor = zlib.decompressobj(wbits=_GZIP_WBITS)
    try:
        plain = decompressor.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise SqsError(errors.SERIALIZATION, f"The body is not gzip: {error}") from error
    if len(plain) > bytes_max:
        raise SqsError(errors.BODY_TOO_LARGE, f"HTTP content length exceeded {bytes_max} bytes.")
    if not decompressor.eof or decompressor.unused_data:
        raise SqsError(errors.SERIALIZATION, "The body is not one whole gzip stream.")
    return plain
