"""What managers ask of coordination (etcd), as plain data, so that the core can ask and the simulation can answer.

Model: a store of keys with revisions, one transaction at a time, as etcd's. Every put changes a key's ``mod_revision``.
Invariant: a transaction whose outcome is not known is never assumed to have failed: its key is read again.
"""

from __future__ import annotations

import msgspec

ABSENT = 0
"""The mod_revision of a key that does not exist."""


class KeyValue(msgspec.Struct, frozen=True, gc=False):
    key: str
    value: bytes
    mod_revision: int


class Compare(msgspec.Struct, frozen=True):
    """Holds when the key's mod_revision is this one (ABSENT: when there is no such key), and its value, if given.

    The value is for what is remembered for long: an etcd restored from a backup goes on from the backup's revision, and
    gives the same numbers to other values. Where a key was read just before, the revision will do.
    """

    key: str
    mod_revision: int
    value: bytes | None = None


class Put(msgspec.Struct, frozen=True):
    """``leased`` binds the key to this process's session lease: it goes when the process does."""

    key: str
    value: bytes
    leased: bool = False


class Remove(msgspec.Struct, frozen=True):
    key: str


class Transaction(msgspec.Struct, frozen=True):
    """If every comparison holds, carries out the changes, in order; then, either way, reads ``reads``, linearizably."""

    compares: list[Compare]
    changes: list[Put | Remove]
    reads: list[str] = []


class Outcome(msgspec.Struct, frozen=True):
    """``revision``: of the store after the transaction; a key that it put has this mod_revision.

    ``found``: the keys of ``reads`` that exist, as they are after it.
    """

    succeeded: bool
    revision: int
    found: dict[str, KeyValue]


class Change(msgspec.Struct, frozen=True):
    """A watch event. ``value`` None: the key is gone."""

    key: str
    value: bytes | None
    mod_revision: int


class Snapshot(msgspec.Struct, frozen=True):
    """Every key under the prefix as of ``revision``: what a watch begins with, and again after compaction."""

    revision: int
    items: list[KeyValue]
