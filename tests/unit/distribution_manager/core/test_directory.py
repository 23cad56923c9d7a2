"""What a manager takes over from etcd, and what not."""

from __future__ import annotations

from distribution_manager.core.directory import Directory
from distribution_manager.core.metadata import QueueMetadata, encode_record
from distribution_manager.core.transactions import Change, KeyValue, Snapshot

QUEUE = f"{7:016x}"
KEY = f"meta/{QUEUE}"


def directory() -> Directory:
    return Directory(
        on_shard=lambda shard: None, on_grave=lambda queue: None, on_queue=lambda queue: None, on_manager=lambda m: None
    )


def metadata(version: int, factor: int) -> bytes:
    return encode_record(QueueMetadata(queue_id=QUEUE, name="q", version=version, shadow_factor=factor))


def test_an_older_change_is_passed_over() -> None:
    known = directory()
    known.changes([Change(KEY, metadata(2, 2), 12), Change(KEY, metadata(1, 1), 11)])
    assert known.queues[QUEUE].shadow_factor == 2


def test_a_whole_copy_is_believed_also_where_a_revision_is_another_value_now() -> None:
    """A store that was set back counts the same revisions again."""
    known = directory()
    known.changes([Change(KEY, metadata(4, 1), 47)])
    known.snapshot(Snapshot(50, [KeyValue(KEY, metadata(4, 0), 47)]))
    assert known.queues[QUEUE].shadow_factor == 0
