"""What a ``ShardWrite`` does to a shard's record: the same rules for every store.

Model: a function from (record, write) to the next record; rows and log bodies are the store's business.
Invariant: a log is without holes from ``log_start`` to ``last``; a write that would make one is refused.
"""

from __future__ import annotations

from collections.abc import Callable

from shadow_nodes.core.store import LogEntry, ReplicaRecord, ShardWrite
from shadow_nodes.protocol.messages import Position


def after_write(
    record: ReplicaRecord,
    write: ShardWrite,
    position_at: Callable[[int], Position],
    staged: Position | None,
) -> ReplicaRecord:
    """The record after ``write``, which is not an erase.

    ``position_at``: the position of the log entry of a seq after ``log_start``, before this write. ``staged``: the
    checkpoint of the snapshot to install, None where there is none of that number.
    Raises ValueError where the write does not fit the record; that is a bug in the caller.
    """
    promised = record.promised if write.promised is None else write.promised
    commit_seq, checkpoint, log_start, last = record.commit_seq, record.checkpoint, record.log_start, record.last
    if write.install is not None:
        if staged is None:
            raise ValueError(f"{write.shard}: no snapshot number {write.install} is staged")
        if write.cut_after is not None:
            raise ValueError(f"{write.shard}: an install leaves no log to cut")
        checkpoint = log_start = last = staged
        commit_seq = max(commit_seq, staged.seq)
    if write.cut_after is not None and write.cut_after < last.seq:
        if write.cut_after < log_start.seq:
            raise ValueError(f"{write.shard}: cut after {write.cut_after}, before the log's start {log_start}")
        last = log_start if write.cut_after == log_start.seq else position_at(write.cut_after)
    if write.entries:
        last = _after_entries(write.shard, last, write.entries)
    if write.commit_seq is not None:
        commit_seq = write.commit_seq
    if write.checkpoint is not None:
        checkpoint = write.checkpoint.position
    if write.trim is not None and write.trim.seq > log_start.seq:
        if write.trim.seq > last.seq or write.trim.seq > checkpoint.seq:
            raise ValueError(f"{write.shard}: trim up to {write.trim}, after {checkpoint} or {last}")
        log_start = write.trim
    retired = record.retired or write.retired
    return ReplicaRecord(record.shard, promised, commit_seq, checkpoint, log_start, last, retired)


def _after_entries(shard: str, last: Position, entries: list[LogEntry]) -> Position:
    epoch, seq = last.epoch, last.seq
    for entry in entries:
        if entry.seq != seq + 1 or entry.epoch < epoch:
            raise ValueError(f"{shard}: entry ({entry.epoch}, {entry.seq}) does not follow ({epoch}, {seq})")
        epoch, seq = entry.epoch, entry.seq
    return Position(epoch, seq)


def check_erase(write: ShardWrite) -> None:
    """Raises ValueError where an erase carries anything else."""
    if write != ShardWrite(write.shard, erase=True):
        raise ValueError(f"{write.shard}: an erase carries nothing else")
