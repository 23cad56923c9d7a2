"""A queue's Policy attribute: IAM's policy language, as far as it means something here, read and evaluated.

Model: the text becomes statements of matchers. A request is described by its principal, action, resource and condition
keys. An explicit deny wins over every allow.
Invariant: a policy that can be read is evaluated in full; any part that is not supported makes it unreadable, and so is
refused when it is set.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from distribution_manager.sqs.access.conditions import Condition, Context, PolicyError, read_conditions
from distribution_manager.sqs.access.patterns import Matcher, any_matcher, matcher

VERSIONS = ("2008-10-17", "2012-10-17")
VERSION_WITH_VARIABLES = "2012-10-17"
ACTIONS = frozenset(
    {
        "AddPermission",
        "CancelMessageMoveTask",
        "ChangeMessageVisibility",
        "CreateQueue",
        "DeleteMessage",
        "DeleteQueue",
        "GetQueueAttributes",
        "GetQueueUrl",
        "ListDeadLetterSourceQueues",
        "ListMessageMoveTasks",
        "ListQueueTags",
        "ListQueues",
        "PurgeQueue",
        "ReceiveMessage",
        "RemovePermission",
        "SendMessage",
        "SetQueueAttributes",
        "StartMessageMoveTask",
        "TagQueue",
        "UntagQueue",
    }
)
BATCHES = {
    "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
    "DeleteMessageBatch": "DeleteMessage",
    "SendMessageBatch": "SendMessage",
}
"""Batch operations have no permission of their own. Policies may name them all the same; then it means nothing."""
_STATEMENT_FIELDS = frozenset(
    {"Sid", "Effect", "Principal", "Action", "NotAction", "Resource", "NotResource", "Condition"}
)
_ACCOUNT = re.compile(r"\d{12}", re.ASCII)
_ROOT = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):root", re.ASCII)
_PRINCIPAL = re.compile(r"arn:aws[a-z-]*:(?:iam|sts)::\d{12}:[a-z-]+/[!-)+->@-~]+", re.ASCII)
_SERVICE = re.compile(r"[a-z0-9.-]+\.amazonaws\.com(?:\.cn)?", re.ASCII)


class Verdict(enum.Enum):
    """What a policy says. DELEGATED: allowed to the principal's account, whose own permissions then decide."""

    NOTHING = 0
    DELEGATED = 1
    ALLOW = 2
    DENY = 3


class Access(NamedTuple):
    """Who wants to do what: ``action`` as ``SendMessage``; ``resource`` is the queue's ARN."""

    principal: str
    account: str
    action: str
    resource: str


class _Statement(NamedTuple):
    deny: bool
    principal: Callable[[Access], Verdict]
    action: Matcher
    resource: Matcher
    conditions: tuple[Condition, ...]


class Policy(NamedTuple):
    statements: tuple[_Statement, ...]

    def verdict(self, access: Access, context: Callable[[], Context]) -> Verdict:
        """``context`` is only called where a condition asks for it."""
        found = Verdict.NOTHING
        for statement in self.statements:
            if not (statement.action(access.action) and statement.resource(access.resource)):
                continue
            who = statement.principal(access)
            if who is Verdict.NOTHING:
                continue
            if statement.conditions:
                keys = context()
                if not all(condition.holds(keys) for condition in statement.conditions):
                    continue
            if statement.deny:
                return Verdict.DENY
            if found is not Verdict.ALLOW:
                found = who
        return found


@lru_cache(maxsize=1024)
def read_policy(text: str) -> Policy:
    """Raises PolicyError."""
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise PolicyError("The policy is not a valid JSON map.") from None
    if not isinstance(document, dict):
        raise PolicyError("The policy is not a valid JSON map.")
    unknown = sorted(document.keys() - {"Version", "Id", "Statement"})
    if unknown:
        raise PolicyError(f"Policy element {unknown[0]} is not supported.")
    version = document.get("Version", VERSIONS[0])
    if version not in VERSIONS:
        raise PolicyError(f"Version must be one of {', '.join(VERSIONS)}.")
    if not isinstance(document.get("Id", ""), str):
        raise PolicyError("Id must be text.")
    listed = document.get("Statement")
    statements = listed if isinstance(listed, list) else [listed]
    variables = version == VERSION_WITH_VARIABLES
    return Policy(tuple(_statement(statement, variables) for statement in statements))


def _statement(element: Any, variables: bool) -> _Statement:
    if not isinstance(element, dict):
        raise PolicyError("Every Statement must be an object.")
    unknown = sorted(element.keys() - _STATEMENT_FIELDS)
    if unknown:
        raise PolicyError(f"Statement element {unknown[0]} is not supported.")
    if element.get("Effect") not in ("Allow", "Deny"):
        raise PolicyError("Effect must be Allow or Deny.")
    if not isinstance(element.get("Sid", ""), str):
        raise PolicyError("Sid must be text.")
    return _Statement(
        element["Effect"] == "Deny",
        _principal(element.get("Principal")),
        _either(element, "Action", _actions),
        _either(element, "Resource", lambda patterns: _resources(patterns, variables)),
        read_conditions(element["Condition"], variables=variables) if "Condition" in element else (),
    )


def _either(element: dict[str, Any], name: str, read: Callable[[list[str]], Matcher]) -> Matcher:
    """``name``, or its complement ``Not...``; exactly one of the two must be there."""
    if (name in element) == (f"Not{name}" in element):
        raise PolicyError(f"A statement must contain {name} or Not{name}, and not both.")
    negated = name not in element
    found = read(_strings(element[f"Not{name}" if negated else name], name))
    return (lambda text: not found(text)) if negated else found


def _strings(value: object, name: str) -> list[str]:
    listed = value if isinstance(value, list) else [value]
    texts = [item for item in listed if isinstance(item, str) and item]
    if not texts or len(texts) < len(listed):
        raise PolicyError(f"{name} must be text or a list of texts.")
    return texts


def _actions(patterns: list[str]) -> Matcher:
    bare = []
    for pattern in patterns:
        service, colon, action = pattern.partition(":")
        if pattern == "*":
            action = "*"
        elif service.lower() != "sqs" or not colon:
            raise PolicyError(f"Action {pattern} is not one of SQS.")
        matches = matcher(action, ignore_case=True)
        if not any(matches(known) for known in ACTIONS | BATCHES.keys()):
            raise PolicyError(f"Action {pattern} is not one of SQS.")
        bare.append(action)
    return any_matcher(bare, ignore_case=True)


def _resources(patterns: list[str], variables: bool) -> Matcher:
    for pattern in patterns:
        if variables and "${" in pattern:
            raise PolicyError("Policy variables (${...}) are not supported.")
        parts = pattern.split(":")
        if pattern != "*" and not (len(parts) == 6 and parts[0] == "arn" and parts[2] == "sqs"):
            raise PolicyError(f"Resource {pattern} is not the ARN of a queue.")
    return any_matcher(patterns)


# --- principals ----------------------------------------------------------------------------------------------------


def _principal(element: object) -> Callable[[Access], Verdict]:
    if element == "*":
        return lambda access: Verdict.ALLOW
    if not isinstance(element, dict) or not element:
        raise PolicyError('A statement must contain a Principal: "*", or an object with AWS or Service.')
    unknown = sorted(element.keys() - {"AWS", "Service"})
    if unknown:
        raise PolicyError(f"Principal of type {unknown[0]} is not supported.")
    for service in _strings(element["Service"], "Principal") if "Service" in element else ():
        # no service of AWS ever calls here: the statement is understood, and lets nobody in
        if service != "*" and not _SERVICE.fullmatch(service):
            raise PolicyError(f"Principal {service} is not a service.")
    accounts, arns = set(), set()
    for name in _strings(element["AWS"], "Principal") if "AWS" in element else ():
        root = _ROOT.fullmatch(name)
        if root is not None or _ACCOUNT.fullmatch(name):
            accounts.add(root[1] if root is not None else name)
        elif name == "*" or _PRINCIPAL.fullmatch(name):
            arns.add(name)
        else:
            raise PolicyError(f"Principal {name} is not an account, the ARN of a user or role, or *.")

    def verdict(access: Access) -> Verdict:
        if access.principal in arns or "*" in arns:
            return Verdict.ALLOW
        return Verdict.DELEGATED if access.account in accounts else Verdict.NOTHING

    return verdict
