"""Bounds of the production code, made small for a run: what happens once in a million entries then happens in fifty."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distribution_manager.core import healer, owner, replication, sequencer, takeover
from shadow_nodes.core import replica
from shadow_nodes.core.machine import machine, state

PLACES: dict[str, list[tuple[Any, str]]] = {
    "checkpoint_rows": [(replica, "CHECKPOINT_ROWS_MAX")],
    "window_bytes": [(replication, "WINDOW_BYTES_MAX"), (replication, "AWAY_WINDOW_BYTES_MAX")],
    "append_bytes": [(replica, "APPEND_BYTES_MAX"), (replication, "APPEND_BYTES_MAX")],
    "fetch_entries": [(takeover, "FETCH_ENTRIES_MAX")],
    "entries_under_way": [(sequencer, "ENTRIES_UNDER_WAY_MAX")],
    "expire_per_entry": [(machine, "EXPIRE_PER_ENTRY_MAX")],
    "window_ms": [(state, "DEDUPLICATION_WINDOW_MS"), (state, "RECEIVE_ATTEMPT_WINDOW_MS")],
    "content_bytes": [(replica, "CONTENT_BYTES_MAX")],
    "learner_patience_ms": [(healer, "LEARNER_PATIENCE_MS")],
    "commit_notice_ms": [(owner, "COMMIT_NOTICE_MS")],
    "learners": [(healer, "LEARNERS_MAX")],
}


@contextmanager
def bounds(values: dict[str, int]) -> Iterator[None]:
    before = [(module, name, getattr(module, name)) for key in values for module, name in PLACES[key]]
    for key, value in values.items():
        for module, name in PLACES[key]:
            setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
