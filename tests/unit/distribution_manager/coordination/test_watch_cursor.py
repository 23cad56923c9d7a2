"""An interrupted watch delivers nothing that does not continue what it delivered before."""

from __future__ import annotations

import pytest

from distribution_manager.coordination.watch_cursor import HistoryDiffersError, WatchCursor
from distribution_manager.core.transactions import Change, KeyValue, Snapshot


def cursor_at(snapshot: Snapshot, *changes: Change) -> WatchCursor:
    cursor = WatchCursor()
    assert cursor.resume_revision == 0
    cursor.begin(snapshot)
    assert cursor.accept(list(changes)) == list(changes)
    return cursor


SNAPSHOT = Snapshot(9, [KeyValue("a", b"1", 5), KeyValue("b", b"2", 7)])


def test_a_stream_opened_before_the_snapshot_repeats_what_the_snapshot_holds() -> None:
    cursor = WatchCursor()
    cursor.begin(SNAPSHOT)
    assert cursor.accept([Change("b", b"2", 7), Change("c", None, 9), Change("c", b"", 10)]) == [Change("c", b"", 10)]


def test_resuming_repeats_the_last_revision_and_delivers_what_follows() -> None:
    cursor = cursor_at(SNAPSHOT, Change("a", None, 10), Change("c", b"", 10))
    assert cursor.resume_revision == 10
    cursor.resume(12)
    repeated = [Change("c", b"", 10), Change("a", None, 10)]
    assert cursor.accept(repeated) == []
    assert cursor.accept([Change("d", b"", 12)]) == [Change("d", b"", 12)]
    assert cursor.resume_revision == 12


def test_resuming_after_a_snapshot_verifies_its_latest_key() -> None:
    cursor = cursor_at(SNAPSHOT)
    assert cursor.resume_revision == 7
    cursor.resume(9)
    changes = [Change("b", b"2", 7), Change("x", b"", 8), Change("x", None, 9), Change("y", b"", 10)]
    assert cursor.accept(changes) == [Change("y", b"", 10)]


def test_an_empty_snapshot_is_read_again() -> None:
    assert cursor_at(Snapshot(9, [])).resume_revision == 0


def test_a_revision_that_went_back_is_another_history() -> None:
    cursor = cursor_at(SNAPSHOT)
    with pytest.raises(HistoryDiffersError):
        cursor.resume(8)


@pytest.mark.parametrize(
    "said", [Change("b", b"other", 7), Change("x", b"2", 7), Change("b", None, 7), Change("b", b"2", 8)]
)
def test_a_store_that_passed_the_revision_with_another_history_is_found_out(said: Change) -> None:
    cursor = cursor_at(SNAPSHOT)
    cursor.resume(9)
    with pytest.raises(HistoryDiffersError):
        cursor.accept([said, Change("z", b"", 10)])
    cursor.forget()
    assert cursor.resume_revision == 0
