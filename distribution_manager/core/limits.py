"""The managers' own bounds, by name, with the relations between them asserted once, here."""

from __future__ import annotations

from shadow_nodes.protocol.limits import (
    APPEND_BYTES_MAX,
    CLOCK_SKEW_MAX_MS,
    ENTRY_BYTES_MAX,
    HEARTBEAT_INTERVAL_MS,
    MIB,
    OPERATION_HOLD_MS,
    SESSION_IDLE_MS,
    SILENCE_BOUND_MS,
)

# --- sequencing ----------------------------------------------------------------------------------------------------

ENTRIES_UNDER_WAY_MAX = 256
"""Entries sequenced and not yet committed, per shard: at ENTRY_PACE_MS, what a quorum 250 ms away takes, so that no
operation waits for a place. What a slow disk makes wait is bounded by BYTES_UNDER_WAY_MAX."""
BYTES_UNDER_WAY_MAX = 8 * MIB
ENTRY_PACE_MS = 1
"""While entries are under way the next gathers operations for at least this long, unless it is full enough."""
ENTRY_FULL_OPERATIONS = 64
"""An entry with this many operations goes at once."""
STALL_MS = 500
"""Where no entry has been committed for this long though some are under way, a quorum may be gone: what comes now waits
outside the log until one is, or until its deadline, so that a receive of which nobody will hear hides no messages."""
OPERATIONS_WAITING_MAX = 50_000
"""Operations waiting to be sequenced, per shard; more are refused, retryably."""
DEADLINE_SLACK_MS = SESSION_IDLE_MS // 2
"""A stray copy of an operation is refused this long after its deadline, by the shard's clock: sessions outlive that,
and a manager's clock may be wrong by less."""
WINDOW_BYTES_MAX = 32 * MIB
"""Entries kept by an owner for replicas that are behind, per shard; a replica further behind copies from another."""

# --- answering -----------------------------------------------------------------------------------------------------

PATIENCE_ROUND_TRIPS = 4
"""Every bound on a node's answer is this many of its round trips longer than the bound says."""
RESULT_BOUND_MS = 150
"""A primary that has not answered for this long is passed over: the next nearest replica is asked."""
PRIMARY_SILENT_MS = 1_000
"""A primary that has said nothing about a busy shard for this long is replaced, though its link is up."""
COMMIT_NOTICE_MS = 500
"""Replicas learn of a commit with the next append, or after this long without one; who is to tell a result, at once.
Sooner, a queue that is used now and then would pay for every operation twice: see benchmarks/README.md."""
LONG_POLL_SLICE_MS = 1_000
"""A waiting receive is asked for anew, under a new operation id, this often, so that no old id holds results back."""

# --- ownership -----------------------------------------------------------------------------------------------------

TAKEOVER_STAGGER_MS = 40
"""Managers that see an owner gone try for its lock one after the other, nearest first, this far apart."""
TAKEOVER_RETRY_MS = 250
"""A takeover that does not get on tries its step again after this."""
CLOCK_PATIENCE_MS = 1_000
"""An owner whose time a quorum refuses is kept for this long: its successor's may be refused as well."""
ORPHANS_LOOKED_AT_PER_TICK = 50
"""Every heartbeat interval a manager looks at this many shards for ones that have lost their owner and are not used."""
UNSEEN_GRACE_MS = 2_000
"""A node that has been up this long and has not seen a manager counts as seeing it gone."""
PROMOTE_AFTER_MS = 300
"""A primary out of reach for this long is replaced in the metadata (the results come from another at once)."""
PRIMARY_DISTANCE_MARGIN_MS = 5
"""A new owner that has a caught-up replica nearer than the primary by more than this makes that the primary."""
MEMBERSHIP_RETRY_MS = 500
"""A change of the replica set is looked at again after this."""
SET_TOLD_PATIENCE_MS = 3_000
"""An entry that tells the log of a changed record is waited for so long: operations wait no longer than they may."""
HEAL_AFTER_MS_DEFAULT = 300_000
"""A replica whose node has been out of reach for this long is replaced by one on another node."""
LEARNER_PATIENCE_MS = 10_000
"""A newcomer that goes out of reach while it copies is waited for this long, then another is chosen."""
LEARNERS_MAX = 4
"""Newcomers that copy at a time, of all the shards of one manager: nodes bound their bytes per second besides."""
LEARNER_SLOT_MS = 600_000
"""A newcomer that has not been admitted after this goes on, but counts as none of these: one that is stuck would keep
others waiting. One whose node cannot take the shard at all is not asked again for as long."""
HEALING_LOOKED_AT_PER_TICK = 50
"""Every heartbeat interval a manager looks at the replica sets of this many of its shards."""
REROUTE_INTERVAL_MS = 50
"""How often an operation without a place to go looks again."""
SWEEP_INTERVAL_MS = 250
"""How often deadlines are looked at."""
FORWARD_HOPS_MAX = 2
"""How often an operation may be passed on between managers."""
LEARN_RETRY_MS = 2_000
"""A replica that was told to copy and has said nothing is told again after this."""
LETTERS_RETRY_MS = 2_000
"""Dead letters whose target cannot be had are tried again after this."""
LETTERS_PAUSE_MS = 20
"""When some are delivered, the next are asked for after this: by then that is in the log."""
LETTERS_PER_ACCEPT_MAX = 100

assert ENTRY_BYTES_MAX < BYTES_UNDER_WAY_MAX < WINDOW_BYTES_MAX
assert APPEND_BYTES_MAX < WINDOW_BYTES_MAX
assert 250 < STALL_MS < SILENCE_BOUND_MS, "no way to a quorum that the window is made for looks like a stall"
assert RESULT_BOUND_MS < SILENCE_BOUND_MS < OPERATION_HOLD_MS
assert LONG_POLL_SLICE_MS < OPERATION_HOLD_MS
assert UNSEEN_GRACE_MS > HEARTBEAT_INTERVAL_MS
assert OPERATION_HOLD_MS + LONG_POLL_SLICE_MS + DEADLINE_SLACK_MS + CLOCK_SKEW_MAX_MS < SESSION_IDLE_MS
