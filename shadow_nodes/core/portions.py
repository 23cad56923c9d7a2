"""Answers in portions: contents are large, and what fits no frame, or waits too long on a link, ends the link."""

from __future__ import annotations

from shadow_nodes.core.machine.message import content_bytes
from shadow_nodes.protocol.commands import Batch, Letter, Result
from shadow_nodes.protocol.limits import ENTRY_BYTES_MAX


def result_bytes(result: Result | None) -> int:
    """Of the contents in a result; whatever else there may be is small."""
    return sum(content_bytes(one.content) for one in result.messages) if isinstance(result, Batch) else 0


def fitting(letters: list[Letter]) -> list[Letter]:
    """The first letters, at least one, that one operation has room for."""
    size_bytes = 0
    for index, letter in enumerate(letters):
        size_bytes += content_bytes(letter.content)
        if index and size_bytes > ENTRY_BYTES_MAX:
            return letters[:index]
    return letters
