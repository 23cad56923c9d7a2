"""What a node says of itself over HTTP: to managers when it joins, and to whoever asks who is at its address.

A node POSTs its ``Announcement`` to ``JOIN_PATH`` of any manager; the manager asks ``IDENTITY_PATH`` at the announced
address, so that what it writes into etcd is an address at which that node was found.
"""

from __future__ import annotations

import msgspec

JOIN_PATH = "/admin/join"
IDENTITY_PATH = "/identity"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """``incarnation``: of the store. ``life``: the process's random number: two processes never have the same."""

    node: str
    region: str
    cluster: str
    incarnation: str
    life: int


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """``address``: where managers and nodes reach the node: host:port, or the name of an SRV record."""

    identity: Identity
    address: str
