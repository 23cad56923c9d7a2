"""Pure: no asyncio, sockets, files, clock or randomness. Messages step in, a ``Ready`` comes out."""
