"""What became of operations, kept beside the log for those who read it later (protocol/audit.py).

Model: outcomes gather in memory, in chunks, from one checkpoint to the next, are written with that, and are kept as
long as the log. After a crash they follow anew from the log, as the state does.
Invariant: no chunk reaches over a checkpoint, so that log and outcomes are trimmed at the same place.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from shadow_nodes.protocol.audit import EntryOutcomes, Given, Outcome
from shadow_nodes.protocol.commands import Batch, Command, Entry, Result
from shadow_nodes.protocol.limits import KIB

OUTCOME_CHUNK_BYTES = 32 * KIB
"""A chunk is decoded whole for what is asked of it: about a millisecond."""
OUTCOME_BYTES_MAX = 256 * KIB
"""A shard with this many bytes of outcomes since its checkpoint is checkpointed: they are in memory until then."""

Chunk = tuple[int, bytes]
"""The seq of the last entry in it, and a msgpack list of EntryOutcomes."""

_encoder = msgspec.msgpack.Encoder()
_decode = msgspec.msgpack.Decoder(list[EntryOutcomes]).decode


class Outcomes:
    def __init__(self) -> None:
        self._chunks: list[Chunk] = []
        self._open = bytearray()
        self._open_entries = 0
        self._open_seq = 0
        self._size_bytes = 0
        self._writing: list[Chunk] = []

    @property
    def size_bytes(self) -> int:
        """Of what the next checkpoint will write."""
        return self._size_bytes + len(self._open)

    def add(self, entry: Entry, results: list[Result | None], asides: list[tuple[Command, Outcome]]) -> None:
        """``results`` as applying the entry gave them; ``asides`` say more than the results of those commands."""
        if not asides and results.count(None) == len(results):
            return
        found = {index: _compact(result) for index, result in enumerate(results) if result is not None}
        for command, outcome in asides:
            found[next(i for i, one in enumerate(entry.operations) if one.command is command)] = outcome
        _encoder.encode_into((entry.seq, sorted(found.items(), key=lambda item: item[0])), self._open, -1)
        self._open_entries += 1
        self._open_seq = entry.seq
        if len(self._open) >= OUTCOME_CHUNK_BYTES:
            self._close()

    def _close(self) -> None:
        if self._open_entries:
            self._chunks.append((self._open_seq, self._open_chunk()))
            self._size_bytes += len(self._open)
            self._open = bytearray()
            self._open_entries = 0

    def _open_chunk(self) -> bytes:
        return b"\xdd" + self._open_entries.to_bytes(4, "big") + bytes(self._open)

    def take(self) -> list[Chunk]:
        """Everything, for a checkpoint; it can still be read here until that is ``written``."""
        self._close()
        self._writing, self._chunks = self._chunks, []
        self._size_bytes = 0
        return self._writing

    def written(self) -> None:
        self._writing = []

    def chunks(self) -> list[bytes]:
        """What the store does not have yet."""
        chunks = [data for _, data in (*self._writing, *self._chunks)]
        return [*chunks, self._open_chunk()] if self._open_entries else chunks


def between(chunks: Iterable[bytes], after_seq: int, up_to_seq: int) -> list[EntryOutcomes]:
    """Those of the entries after a seq and up to another. Raises msgspec.MsgspecError on what is no chunk."""
    return [item for data in chunks for item in _decode(data) if after_seq < item[0] <= up_to_seq]


def _compact(result: Result) -> Outcome:
    if isinstance(result, Batch):
        return Given([(one.key, one.delivery, one.message_id) for one in result.messages])
    return result
