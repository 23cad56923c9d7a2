"""Gathering messages into frames: the sending half of every link, on both of its ends.

Model: ``put`` gathers; at the end of the loop turn everything gathered is encoded as one frame and handed to the
transport, without ever waiting. Invariant: what waits for one peer is bounded: a link on which more than
``waiting_bytes_max`` wait when a frame is to be sent is aborted, and whoever reads from it learns that it is closed.
No I/O is imported here: the WebSocket is anything of this shape (aiohttp's writer is), the loop only its ``call_soon``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, Protocol, TypeVar

from shadow_nodes.protocol.limits import FRAME_BYTES_MAX, MIB

M = TypeVar("M")

WAITING_BYTES_MAX_DEFAULT = 32 * MIB
"""Per link: what may wait for a slow peer before the link is dropped and the backlog with it."""
_BINARY = 0x2
_NEVER_PAUSE = 1 << 30
"""The transport's high-water mark: its own flow control would make a send wait; the bound here replaces it."""

assert WAITING_BYTES_MAX_DEFAULT + FRAME_BYTES_MAX < _NEVER_PAUSE


class Transport(Protocol):
    """The part of an asyncio transport that is used."""

    def get_write_buffer_size(self) -> int: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


class SocketWriter(Protocol):
    """The part of a WebSocket's writer that is used."""

    @property
    def transport(self) -> Any: ...
    def send_frame(self, message: bytes, opcode: int) -> Coroutine[Any, Any, None]: ...


class FrameWriter(Generic[M]):
    """Sends messages over one WebSocket. ``broken`` says why nothing is sent any more; "" while all is well."""

    def __init__(
        self,
        writer: SocketWriter,
        encode: Callable[[list[M]], bytes],
        call_soon: Callable[..., object],
        waiting_bytes_max: int = WAITING_BYTES_MAX_DEFAULT,
    ) -> None:
        assert waiting_bytes_max + FRAME_BYTES_MAX < _NEVER_PAUSE
        self.broken = ""
        self.frames = 0
        self._writer = writer
        self._transport: Transport = writer.transport
        self._transport.set_write_buffer_limits(high=_NEVER_PAUSE)
        self._encode = encode
        self._call_soon = call_soon
        self._waiting_bytes_max = waiting_bytes_max
        self._gathered: list[M] = []

    def put(self, message: M) -> None:
        """The message goes out with this loop turn's frame, or is lost with the link."""
        if not self._gathered:
            self._call_soon(self.flush)
        self._gathered.append(message)

    def put_all(self, messages: Iterable[M]) -> None:
        for message in messages:
            self.put(message)

    @property
    def waiting_bytes(self) -> int:
        """Given to the transport, not yet taken by the kernel."""
        return 0 if self.broken else self._transport.get_write_buffer_size()

    def flush(self) -> None:
        """Sends what is gathered now, instead of at the end of the loop turn."""
        messages, self._gathered = self._gathered, []
        if messages:
            self.send(messages)

    def send(self, messages: list[M]) -> None:
        """For whoever has gathered a loop turn's messages himself: one frame, unless that would be too large."""
        if self.broken:
            return
        frame = self._encode(messages)
        if len(frame) <= FRAME_BYTES_MAX:
            self._write(frame)
        elif len(messages) == 1:
            self.abort(f"a message of {len(frame)} bytes does not fit a frame")
        else:
            middle = len(messages) // 2
            self.send(messages[:middle])
            self.send(messages[middle:])

    def _write(self, frame: bytes) -> None:
        waiting = self._transport.get_write_buffer_size()
        if waiting > self._waiting_bytes_max:
            self.abort(f"{waiting} bytes wait for the peer, more than {self._waiting_bytes_max}")
            return
        sending = self._writer.send_frame(frame, _BINARY)
        try:
            sending.send(None)
        except StopIteration:
            self.frames += 1
        except OSError as error:
            self.broken = f"{type(error).__name__}: {error}"
        else:
            sending.close()
            raise AssertionError("a WebSocket whose transport is never paused made a send wait")

    def abort(self, reason: str) -> None:
        """Drops the link and what waits on it. The reader of the link learns of it as of any closed connection."""
        if not self.broken:
            self.broken = reason
            self._transport.abort()
