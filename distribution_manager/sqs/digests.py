"""MD5s that SDKs compare, and how message attributes travel inside ``Content.attributes``.

The algorithm is in the SQS Developer Guide, "Calculating the MD5 message digest for message attributes":
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html
"""

from __future__ import annotations

from hashlib import md5
from struct import Struct
from typing import Any

import msgspec

_LENGTH = Struct(">I").pack
_STRING, _BINARY = b"\x01", b"\x02"

Attribute = tuple[str, str, str | bytes]
"""(name, data type, value), value bytes where the type is Binary. Lists of them are sorted by name."""


def text_md5(text: str) -> str:
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def attributes_md5(attributes: list[Attribute]) -> str:
    """``attributes`` sorted by name."""
    digest = md5(usedforsecurity=False)
    for name, data_type, value in attributes:
        transport, encoded = (_BINARY, value) if isinstance(value, bytes) else (_STRING, value.encode())
        name_bytes, type_bytes = name.encode(), data_type.encode()
        digest.update(
            b"".join(
                (
                    _LENGTH(len(name_bytes)),
                    name_bytes,
                    _LENGTH(len(type_bytes)),
                    type_bytes,
                    transport,
                    _LENGTH(len(encoded)),
                    encoded,
                )
            )
        )
    return digest.hexdigest()


pack_attributes = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[tuple[str, str, Any]]).decode


def unpack_attributes(packed: bytes) -> list[Attribute]:
    """The inverse of ``pack_attributes``; b"" is no attributes."""
    return _unpack(packed) if packed else []
