"""Why a shard got another owner, primary or replica: words that its operation log keeps, for those who read it later.

Whoever changes a shard's record says why in a word or two: one of these, or one of its own.
"""

from __future__ import annotations

# --- of a takeover -------------------------------------------------------------------------------------------------

CREATED = "created"
"""The manager that created the queue owns it first."""
RESTARTED = "owner restarted"
"""The same manager, under another life or after it had lost the shard."""
GONE = "owner gone"
"""A quorum of the shard's nodes has its link closed, or silent; or there was none."""
HANDOFF = "handoff"
"""The owner before asked for it: planned."""

# --- of a change of the primary or of the replica set --------------------------------------------------------------

BY_HAND = "by hand"
"""An operator asked for it."""
FAILURE = "failure"
"""The primary was out of reach, or silent."""
DISTANCE = "distance"
"""The primary was well, but far from the owner that has taken over."""
LOAD = "load"
"""A signal was over its threshold, or forecast to be: see thresholds.py and promotion.py."""
CLIENTS = "clients"
"""The queue's clients are nearer to it."""
FAILBACK = "failback"
"""The queue's own region is well again."""
DRAIN = "drain"
"""An operator takes the primary's node or region, or the owner's region, out of service."""
BALANCE = "balance"
"""An operator spreads primaries and owners."""
NEW_STORE = "new store"
"""The node came back with an empty store, and has been filled."""
LEARNING = "learner chosen"
"""A replica is missing: another node begins to copy the shard."""
REPLACED = "node gone"
"""A replica's node was out of reach for too long: the learner has taken its place."""
GROWN = "shadow factor raised"
"""There were fewer replicas than the queue asks for."""
SHRUNK = "shadow factor lowered"
"""There were more replicas than the queue asks for."""
RESTORED = "etcd restored"
"""etcd had an older record: the owner has put its own back."""
NOT_NEEDED = "learner let go"
"""What it was to replace has come back, or it went out of reach itself."""
