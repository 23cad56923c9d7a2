"""The gate of a manager with authentication on: signature, limits, then permission by key and by queue policy.

Model: ``authorize`` names the credential that signed a request; ``permit`` asks its grants and the queue's policy.
An explicit deny wins. Within an account either of the two may allow; a key of another account needs both, as in AWS:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
Invariant: whatever cannot be understood, a stored policy included, is denied.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.sqs import errors
from distribution_manager.sqs.access.conditions import Context, PolicyError
from distribution_manager.sqs.access.keys import Credential, KeyRing
from distribution_manager.sqs.access.policy import BATCHES, Access, Verdict, read_policy
from distribution_manager.sqs.access.signature import SERVICE, Claim, Message, check, check_scope, read_claim
from distribution_manager.sqs.config import Caller, SqsConfig
from distribution_manager.sqs.errors import SqsError
from distribution_manager.sqs.http.messages import Request

REPAIRS = frozenset({"DeleteQueue", "GetQueueAttributes", "RemovePermission", "SetQueueAttributes"})
"""What a key's own grants decide alone where a queue's policy cannot be read: how else would it be replaced?"""

_log = logging.getLogger(__name__)


class SignatureGate:
    """``regions``: those that signatures may name; empty for any. ``now_s``: Unix time; ``monotonic_s``: for limits."""

    def __init__(
        self,
        config: SqsConfig,
        ring: KeyRing,
        regions: frozenset[str] = frozenset(),
        *,
        now_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._ring = ring
        self._regions = regions
        self._now_s = now_s
        self._monotonic_s = monotonic_s

    # --- who -------------------------------------------------------------------------------------------------------

    def admit(self, request: Request) -> None:
        """Raises SqsError."""
        self._identify(request)

    def authorize(self, request: Request, body: bytes) -> Caller:
        """Raises SqsError."""
        claim, credential = self._identify(request)
        check(claim, credential.keys, Message(request.method, request.path, request.query, request.headers, body))
        if not credential.bucket.take(self._monotonic_s()):
            raise SqsError(errors.REQUEST_THROTTLED, "The request was denied due to request throttling.")
        if request.connection is not None and not credential.connections.admit(request.connection):
            raise SqsError(
                errors.REQUEST_THROTTLED,
                f"The access key is in use over {credential.connections.limit} connections, which is its limit.",
            )
        return Caller(credential.sender_id, credential.principal, credential, request, credential.record.access_key_id)

    def _identify(self, request: Request) -> tuple[Claim, Credential]:
        """Who the request says it is from, and that it says so in time. Raises SqsError."""
        claim = read_claim(request.headers, request.query)
        check_scope(claim, self._regions, SERVICE, self._now_s())
        credential = self._ring.find(claim.terms.access_key_id)
        if credential is None:
            raise SqsError(errors.UNKNOWN_ACCESS_KEY, "The security token included in the request is invalid.")
        return claim, credential

    # --- what ------------------------------------------------------------------------------------------------------

    def permit(self, caller: Caller, operation: str, queue_name: str, queue: QueueMetadata | None) -> None:
        """Raises SqsError."""
        credential = caller.credential
        assert isinstance(credential, Credential), "this gate has made the caller"
        action = BATCHES.get(operation, operation)
        by_key = credential.allows(action, queue_name)
        policy = queue.attributes.get("Policy") if queue is not None else None
        if policy is None:
            if by_key and credential.account == self._config.account:
                return
            raise self._denied(caller, action, queue_name, "identity" if not by_key else "resource")
        assert queue is not None
        verdict = self._verdict(policy, caller, credential, action, queue)
        if verdict is Verdict.DENY:
            raise self._denied(caller, action, queue_name, "")
        if credential.account == self._config.account:
            allowed = by_key or verdict is Verdict.ALLOW
        else:
            allowed = by_key and verdict is not Verdict.NOTHING
        if not allowed:
            raise self._denied(caller, action, queue_name, "identity" if not by_key else "resource")

    def _verdict(self, text: str, caller: Caller, credential: Credential, action: str, queue: QueueMetadata) -> Verdict:
        try:
            policy = read_policy(text)
        except PolicyError as error:
            _log.warning("the policy of queue %s cannot be read: %s", queue.name, error)
            return Verdict.NOTHING if action in REPAIRS else Verdict.DENY
        access = Access(caller.principal, credential.account, action, self._config.arn(queue.name))
        return policy.verdict(access, lambda: self._context(caller, credential, queue))

    def _context(self, caller: Caller, credential: Credential, queue: QueueMetadata) -> Context:
        """The condition keys of a request, in lower case."""
        now_s = self._now_s()
        request = caller.request
        context = {
            "aws:currenttime": datetime.fromtimestamp(now_s, UTC).isoformat(),
            "aws:epochtime": str(int(now_s)),
            "aws:principalaccount": credential.account,
            "aws:principalarn": caller.principal,
            "aws:principalisawsservice": "false",
            "aws:principaltype": "User",
            "aws:requestedregion": self._config.region,
            "aws:resourceaccount": self._config.account,
            "aws:userid": credential.record.access_key_id,
            "aws:username": credential.record.user,
            "aws:viaawsservice": "false",
        }
        if request is not None:
            context["aws:securetransport"] = "true" if request.secure else "false"
            if request.remote:
                context["aws:sourceip"] = request.remote
            for key, header in (("aws:useragent", "user-agent"), ("aws:referer", "referer")):
                if header in request.headers:
                    context[key] = request.headers[header]
        context.update((f"aws:resourcetag/{key.lower()}", value) for key, value in queue.tags.items())
        return context

    def _denied(self, caller: Caller, action: str, queue_name: str, lacking: str) -> SqsError:
        """``lacking``: the kind of policy that does not allow it; "" where one denies it."""
        name = f"sqs:{action.lower()}"
        why = (
            f"because no {lacking}-based policy allows the {name} action"
            if lacking
            else "with an explicit deny in a resource-based policy"
        )
        return SqsError(
            errors.ACCESS_DENIED,
            f"User: {caller.principal} is not authorized to perform: {name} "
            f"on resource: {self._config.arn(queue_name)} {why}",
        )
