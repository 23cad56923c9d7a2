"""JSON that came over HTTP from whoever is at an address: not necessarily of a peer, nor well meant."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from shadow_nodes.protocol.errors import ProtocolError

T = TypeVar("T")


def decode_json(body: bytes, kind: type[T]) -> T:
    """Raises ProtocolError."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(str(error)) from error
