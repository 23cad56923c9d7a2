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

    async def take(self, size_bytes: int) -> None:
        """Waits until that many bytes more are within the pace."""
        now_s = asyncio.get_running_loop().time()
        self._free_s = max(self._free_s, now_s) + size_bytes / self._bytes_per_second
        await asyncio.sleep(self._free_s - now_s)
