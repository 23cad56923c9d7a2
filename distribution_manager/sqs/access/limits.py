"""Limits per access key: how often, and over how many connections. Each manager counts for itself.

Invariant: over any span of t seconds a bucket gives away at most ``burst + rate * t`` tokens.
"""

from __future__ import annotations

from distribution_manager.sqs.http.messages import ClientConnection

BURST_SECONDS = 1.0
"""A bucket holds what its rate gives in this time, and at least one token."""


class TokenBucket:
    """Starts full. ``rate`` is in tokens per second; 0 means that there is no limit."""

    __slots__ = ("_burst", "_tokens", "_updated_s", "rate")

    def __init__(self, rate: float, now_s: float) -> None:
        self.rate = rate
        self._burst = max(1.0, rate * BURST_SECONDS)
        self._tokens = self._burst
        self._updated_s = now_s

    def take(self, now_s: float) -> bool:
        """One token, if there is one. ``now_s`` is monotonic."""
        if not self.rate:
            return True
        tokens = min(self._burst, self._tokens + (now_s - self._updated_s) * self.rate)
        self._updated_s = now_s
        if tokens < 1:
            self._tokens = tokens
            return False
        self._tokens = tokens - 1
        return True


class ConnectionLimit:
    """The connections over which a key is used. ``limit`` 0 means that there is none.

    Closed connections are only looked for when there seem to be too many: closing costs nothing.
    """

    __slots__ = ("_connections", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._connections: set[ClientConnection] = set()

    def admit(self, connection: ClientConnection) -> bool:
        if not self.limit or connection in self._connections:
            return True
        if len(self._connections) >= self.limit:
            self._connections = {item for item in self._connections if item.transport is not None}
            if len(self._connections) >= self.limit:
                return False
        self._connections.add(connection)
        return True
