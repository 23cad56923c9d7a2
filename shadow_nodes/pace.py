"""How fast this node copies from others: so many bytes a second, over all its copies together.

Model: ``_free_s`` is when the line is free again; whoever takes bytes keeps it busy for as long as they last. What is
not taken is not sent: the source waits, as TCP makes it.
"""

from __future__ import annotations

import asyncio


class Pace:
    def __init__(self, bytes_per_second: int) -> None:
        self._bytes_per_second = bytes_per_second
        self._free_s = 0.0

    def wait_s(self, size_bytes: int, now_s: float) -> float:
        """How long until that many bytes more are within the pace."""
        self._free_s = max(self._free_s, now_s) + size_bytes / self._bytes_per_second
        return self._free_s - now_s

    async def take(self, size_bytes: int) -> None:
        """Returns when that many bytes more are within the pace."""
        await asyncio.sleep(self.wait_s(size_bytes, asyncio.get_running_loop().time()))
