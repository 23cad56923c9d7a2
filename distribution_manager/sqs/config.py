"""The SQS layer's settings, who is calling, and the seam for whoever checks signatures and permissions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.sqs.http.messages import Request
from shadow_nodes.protocol.limits import MIB

BODY_BYTES_MAX_DEFAULT = 8 * MIB
"""Decompressed. 1 MiB of messages may be escaped six-fold in JSON (``\\u00e9``), three-fold in a form."""


@dataclass(frozen=True)
class SqsConfig:
    """``region`` and ``account``: what queue ARNs say; every manager of a cluster should say the same.

    ``public_url``: what QueueUrls begin with (``https://sqs.example.com``); None takes the request's own Host header.
    ``name_reuse_seconds``: how long after DeleteQueue the name is refused (SQS: 60).
    ``purge_interval_seconds``: how long after PurgeQueue the next is refused (SQS: 60). Both are kept by the manager
    that was asked, not cluster-wide.
    ``body_bytes_max``: of a request, after decompression. ``body_seconds_max``: how long one may take to come.
    """

    region: str = "us-east-1"
    account: str = "000000000000"
    public_url: str | None = None
    name_reuse_seconds: int = 0
    purge_interval_seconds: int = 60
    body_bytes_max: int = BODY_BYTES_MAX_DEFAULT
    body_seconds_max: float = 60.0

    def __post_init__(self) -> None:
        if not (len(self.account) == 12 and self.account.isascii() and self.account.isdigit()):
            raise ValueError(f"account: must be 12 digits, not {self.account!r}")
        if not self.region:
            raise ValueError("region: must not be empty")
        if self.public_url is not None and urlsplit(self.public_url).scheme not in ("http", "https"):
            raise ValueError(f"public_url: must begin with http:// or https://, not {self.public_url!r}")
        if self.name_reuse_seconds < 0 or self.purge_interval_seconds < 0:
            raise ValueError("name_reuse_seconds, purge_interval_seconds: must not be negative")
        if self.body_bytes_max < 2 * MIB:
            raise ValueError("body_bytes_max: must be at least 2 MiB, or messages of 1 MiB would not fit")
        if self.body_seconds_max <= 0:
            raise ValueError("body_seconds_max: must be above 0")

    def arn(self, queue_name: str) -> str:
        return f"arn:aws:sqs:{self.region}:{self.account}:{queue_name}"


class Caller(NamedTuple):
    """``sender_id``: what receivers see as SenderId. ``principal``: an ARN for policies, "" for nobody.

    ``credential`` and ``request``: what a gate wants to see again when it is asked for permission. ``key``: the access
    key id that a gate has proved; "" where none was asked for.
    """

    sender_id: str
    principal: str = ""
    credential: object | None = None
    request: Request | None = None
    key: str = ""


class Gate(Protocol):
    """Signature check and authorisation. ``authorize`` and ``permit`` are called for every request.

    All three raise SqsError to refuse it.
    """

    def admit(self, request: Request) -> None:
        """Before a body that is not all there yet is read: would the request be refused whatever it is?"""

    def authorize(self, request: Request, body: bytes) -> Caller:
        """Before anything is parsed: who signed this? ``body`` as it was sent, compressed or not."""

    def permit(self, caller: Caller, operation: str, queue_name: str, queue: QueueMetadata | None) -> None:
        """After parsing: may the caller do this? ``queue`` is None where there is none (yet).

        ``queue_name`` is "" for operations on no one queue (ListQueues).
        """


class OpenGate:
    """Lets everyone do everything: for managers with authentication off."""

    def __init__(self, account: str) -> None:
        self._caller = Caller(sender_id=account)

    def admit(self, request: Request) -> None:
        return

    def authorize(self, request: Request, body: bytes) -> Caller:
        return self._caller

    def permit(self, caller: Caller, operation: str, queue_name: str, queue: QueueMetadata | None) -> None:
        return
