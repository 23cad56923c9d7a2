"""What clients saw, as plain data: one JSON object a line.

Model: a history is a list of operations, each with the interval of the machine's monotonic clock inside which it took
effect, if it did, and of marks (faults, phases). It is written while the drill runs and judged afterwards, by code that
knows nothing of how it was made.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

import msgspec

Outcome = Literal["ok", "failed", "unknown"]
"""``failed``: refused, not applied. ``unknown``: the client was told nothing that proves either (connection, 5xx)."""

DRAINED: Final = "drained"
"""The mark that says: senders had stopped, and receiving went on until nothing was left and no timeout was running."""


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message as received. ``sequence`` and ``group``: of FIFO queues."""

    message_id: str
    body: str
    group: str = ""
    sequence: int = 0
    receive_count: int = 0


class Operation(msgspec.Struct, frozen=True, omit_defaults=True, tag="operation"):
    """One call of a client, with all of its SDK's attempts.

    ``body`` names a message for its sender: no two sends of a history have the same, except repeats of one send.
    ``message_id``: of a send its answer's, of a delete the message's. ``retries``: how often the SDK repeated the call.
    ``visibility_s``: of a receive.
    """

    kind: Literal["send", "receive", "delete"]
    worker: str
    endpoint: str
    queue: str
    begin_s: float
    end_s: float
    outcome: Outcome
    error: str = ""
    retries: int = 0
    message_id: str = ""
    body: str = ""
    group: str = ""
    sequence: int = 0
    visibility_s: float = 0.0
    deliveries: tuple[Delivery, ...] = ()


class Mark(msgspec.Struct, frozen=True, tag="mark"):
    """Something that was done to the cluster, or a phase of the drill. ``queue`` "": all."""

    name: str
    begin_s: float
    end_s: float
    queue: str = ""


Record = Operation | Mark
History = list[Record]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


class Recorder:
    """Collects a history from many threads, and writes it to a file where one is given."""

    def __init__(self, path: Path | None = None) -> None:
        self._records: History = []
        self._lock = threading.Lock()
        self._file = None if path is None else path.open("wb", buffering=0)

    def add(self, record: Record) -> None:
        with self._lock:
            self._records.append(record)
            if self._file is not None:
                self._file.write(_encode(record) + b"\n")

    def mark(self, name: str, queue: str = "", begin_s: float | None = None) -> None:
        end_s = time.monotonic()
        self.add(Mark(name, end_s if begin_s is None else begin_s, end_s, queue))

    def history(self) -> History:
        """What has been recorded until now."""
        with self._lock:
            return list(self._records)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def read_history(path: Path) -> History:
    """Raises OSError, msgspec.MsgspecError."""
    with path.open("rb") as file:
        return [_decode(line) for line in file]


def operations(history: Iterable[Record]) -> list[Operation]:
    return [record for record in history if isinstance(record, Operation)]
