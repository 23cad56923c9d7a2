"""Cutting a walk over rows into chunks for a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shadow_nodes.core.store import Row


def in_chunks(rows: Iterable[Row], chunk_bytes: int) -> Iterator[list[Row]]:
    """Chunks that end with the row that brings their values to ``chunk_bytes`` or more; no empty ones."""
    chunk: list[Row] = []
    size_bytes = 0
    for row in rows:
        chunk.append(row)
        size_bytes += len(row[2])
        if size_bytes >= chunk_bytes:
            yield chunk
            chunk, size_bytes = [], 0
    if chunk:
        yield chunk
