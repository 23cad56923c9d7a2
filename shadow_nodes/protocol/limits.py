"""Every bound that managers and nodes share, by name, with the relations between them asserted once, here."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

PROTOCOL_VERSION = 1
"""Raised when a message changes its meaning; a Hello with another version is refused."""

# --- entries and appends -------------------------------------------------------------------------------------------

ENTRY_BYTES_MAX = 1 * MIB
"""An entry takes no further operation once its payload has reached this."""
ENTRY_OPERATIONS_MAX = 1_000
"""An entry carries at most this many operations."""
CALLERS_REPEATED_ENTRIES = 64
"""An entry says who its callers are, unless one of this many (less one) before it, of its epoch, has said so."""
OPERATION_BYTES_MAX = 2 * MIB
"""One operation: a batch of SQS messages is at most 1 MiB of bodies and attributes; the rest is room for encoding."""
APPEND_BYTES_MAX = 4 * MIB
"""One Append, and one answer to a Fetch, carries entries up to about this many bytes (always at least one entry)."""
RESULTS_BYTES_MAX = 8 * MIB
"""Contents in one Applied or Answered (always at least one operation's); the rest is asked for, a part at a time."""
FRAME_BYTES_MAX = 64 * MIB
"""One WebSocket frame; the limit that both ends configure."""

# --- time ----------------------------------------------------------------------------------------------------------

HEARTBEAT_INTERVAL_MS = 250
"""A manager pings every node and manager this often, from the event loop that does the work."""
SILENCE_BOUND_MS = 1_500
"""A manager not heard from for this long is reported silent."""
CLOCK_SKEW_MAX_MS = 10_000
"""A node refuses an entry stamped further than this ahead of its own clock; part of what P2 promises."""
OPERATION_HOLD_MS = 10_000
"""How long an operation waits out a takeover before the client gets a retryable 503."""
SESSION_IDLE_MS = 120_000
"""A shard forgets a manager's session this long after the session's last operation."""

# --- queue state machine -------------------------------------------------------------------------------------------

BATCH_MESSAGES_MAX = 10
RECEIVE_MESSAGES_MAX = 10
DEDUPLICATION_WINDOW_MS = 300_000
RECEIVE_ATTEMPT_WINDOW_MS = 300_000
VISIBILITY_TIMEOUT_MAX_MS = 43_200_000
"""12 hours, counted from the receive, as in SQS."""
IN_FLIGHT_MAX_STANDARD = 120_000
IN_FLIGHT_MAX_FIFO = 20_000
EXPIRE_PER_ENTRY_MAX = 1_000
"""Retention and time-outs handled by one entry; the owner sends another tick for the rest."""

# --- replicas ------------------------------------------------------------------------------------------------------

LOG_RETAINED_BYTES_DEFAULT = 64 * MIB
"""Per shard: applied and checkpointed entries kept beyond the checkpoint, for catch-up, audit and replay."""
CHECKPOINT_ROWS_MAX = 2_000
"""A shard with this many changed rows is checkpointed, so that no checkpoint is ever large."""
CHECKPOINT_LOG_BYTES_MAX = 16 * MIB
"""A shard whose log beyond the checkpoint has this many bytes is checkpointed, so that no restart replays more."""
CONTENT_BYTES_MAX = 256 * MIB
"""Per shard: contents of waiting messages kept in a node's memory; the rest is read from the store when received."""
SNAPSHOT_CHUNK_BYTES = 256 * KIB

assert HEARTBEAT_INTERVAL_MS * 4 < SILENCE_BOUND_MS, "a few lost heartbeats must not look like silence"
assert SILENCE_BOUND_MS * 2 < OPERATION_HOLD_MS, "an operation must outlive the noticing of a silent owner"
assert OPERATION_HOLD_MS * 6 < SESSION_IDLE_MS, "a session must outlive every operation sent under it"
assert OPERATION_HOLD_MS + CLOCK_SKEW_MAX_MS < SESSION_IDLE_MS
assert ENTRY_BYTES_MAX + OPERATION_BYTES_MAX < APPEND_BYTES_MAX < FRAME_BYTES_MAX
assert VISIBILITY_TIMEOUT_MAX_MS > DEDUPLICATION_WINDOW_MS
