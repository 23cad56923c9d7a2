"""Structured logs: one JSON object per line, on stderr."""

from __future__ import annotations

import datetime
import json
import logging
import sys

FIELDS = ("shard", "epoch", "link", "manager", "peer", "cause")
"""What a call may add with ``extra``, where it applies."""


class JsonFormatter(logging.Formatter):
    """``ts`` (UTC), ``level``, ``msg``, then what is the same in every line of this process, then ``FIELDS``."""

    def __init__(self, **always: str) -> None:
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, object] = {
            "ts": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
            **self._always,
        }
        line.update((name, record.__dict__[name]) for name in FIELDS if name in record.__dict__)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_to_stderr(level: str, **always: str) -> None:
    """Replaces the root logger's handlers."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(**always))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
