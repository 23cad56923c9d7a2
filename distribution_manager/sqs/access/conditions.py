"""The Condition element of a policy: operators and the keys they may ask for.

Model: an operator with its values becomes a test of one text, the request's value of a key. Negated operators hold
where no value matches, and where the request has no such key; ``...IfExists`` holds where it has none.
Invariant: an operator, key or value that would not be understood is refused when the policy is set.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from distribution_manager.sqs.access.patterns import matcher

Test = Callable[[str], bool]
Context = Mapping[str, str]
"""The request's condition keys, in lower case. One that is not there has no value."""

VALUES_MAX = 500
KEYS = frozenset(
    {
        "aws:currenttime",
        "aws:epochtime",
        "aws:principalaccount",
        "aws:principalarn",
        "aws:principalisawsservice",
        "aws:principaltype",
        "aws:referer",
        "aws:requestedregion",
        "aws:resourceaccount",
        "aws:securetransport",
        "aws:sourceip",
        "aws:useragent",
        "aws:userid",
        "aws:username",
        "aws:viaawsservice",
    }
)
"""Keys that a request has. ``aws:ResourceTag/...``, the queue's tags, are understood as well."""
KEYS_NEVER_THERE = frozenset(
    {
        "aws:multifactorauthage",
        "aws:multifactorauthpresent",
        "aws:principalorgid",
        "aws:principalorgpaths",
        "aws:principalservicename",
        "aws:sourceaccount",
        "aws:sourcearn",
        "aws:sourceorgid",
        "aws:sourceorgpaths",
        "aws:sourceowner",
        "aws:sourcevpc",
        "aws:sourcevpce",
        "aws:tokenissuetime",
        "aws:vpcsourceip",
    }
)
"""Keys that AWS gives requests of its services, organisations, networks and sessions: here, as with a plain access key
of AWS, a request has none of them, and conditions on them mean what they mean there."""
_RESOURCE_TAG = "aws:resourcetag/"


class PolicyError(ValueError):
    """A policy is malformed, or asks for what is not supported. The message says which."""


class Condition(NamedTuple):
    """``test`` is of the key's value; ``when_absent`` is the answer where there is none."""

    key: str
    test: Test
    when_absent: bool

    def holds(self, context: Context) -> bool:
        value = context.get(self.key)
        return self.when_absent if value is None else self.test(value)


def read_conditions(element: object, *, variables: bool) -> tuple[Condition, ...]:
    """``variables``: the policy's version gives ``${...}`` a meaning. Raises PolicyError."""
    if not isinstance(element, dict):
        raise PolicyError("Condition must be an object of operators.")
    conditions = []
    for operator, keys in element.items():
        if not isinstance(keys, dict) or not keys:
            raise PolicyError(f"Condition operator {operator} must have an object of keys.")
        for key, values in keys.items():
            _check_key(key)
            conditions.append(_condition(operator, key.lower(), _texts(values, key, variables)))
    return tuple(conditions)


def _check_key(key: str) -> None:
    folded = key.lower()
    tag = folded.startswith(_RESOURCE_TAG) and len(folded) > len(_RESOURCE_TAG)
    if not (tag or folded in KEYS or folded in KEYS_NEVER_THERE):
        raise PolicyError(f"Condition key {key} is not supported.")


def _texts(values: object, key: str, variables: bool) -> list[str]:
    listed = values if isinstance(values, list) else [values]
    if not listed or len(listed) > VALUES_MAX:
        raise PolicyError(f"Condition key {key} must have 1 to {VALUES_MAX} values.")
    texts = [_text(value, key) for value in listed]
    if variables and any("${" in text for text in texts):
        raise PolicyError("Policy variables (${...}) are not supported.")
    return texts


def _text(value: object, key: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise PolicyError(f"Condition key {key} has a value that is not text, number or boolean.")


# --- operators -----------------------------------------------------------------------------------------------------


def _condition(operator: str, key: str, values: list[str]) -> Condition:
    if operator.lower() == "null":
        return _null(key, values)
    name = operator.lower()
    if_exists = name.endswith("ifexists")
    name = name.removesuffix("ifexists")
    negated = name in _NEGATED
    make = _OPERATORS.get(_NEGATED.get(name, name))
    if make is None:
        raise PolicyError(f"Condition operator {operator} is not supported.")
    try:
        tests = [make(value) for value in values]
    except PolicyError:
        raise
    except (ValueError, InvalidOperation):
        raise PolicyError(f"Condition {operator} on {key} has a value that it cannot compare with.") from None

    def test(text: str) -> bool:
        return any(matches(text) for matches in tests) is not negated

    return Condition(key, test, negated or if_exists)


def _null(key: str, values: list[str]) -> Condition:
    """Null: true asks that the key be absent, false that it be there."""
    wanted = {_boolean(value) for value in values}
    return Condition(key, lambda text: False in wanted, True in wanted)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise PolicyError(f"{text!r} is not true or false.")
    return text.lower() == "true"


def _safely(convert: Callable[[str], Any], compare: Callable[[Any], bool]) -> Test:
    """A request's value that cannot be converted matches nothing."""

    def test(text: str) -> bool:
        try:
            return compare(convert(text))
        except (ValueError, InvalidOperation):
            return False

    return test


def _ignoring_case(value: str) -> Test:
    folded = value.casefold()
    return lambda text: text.casefold() == folded


def _bool(value: str) -> Test:
    wanted = _boolean(value)
    return lambda text: text == ("true" if wanted else "false")


def _address(value: str) -> Test:
    network = ipaddress.ip_network(value, strict=False)
    return _safely(ipaddress.ip_address, lambda address: address in network)


def _arn(value: str) -> Test:
    """Each of the six parts by itself, so that no star reaches over a colon."""
    parts = value.split(":", 5)
    if len(parts) != 6 and value != "*":
        raise ValueError("not an ARN")
    if value == "*":
        return lambda text: True
    tests = [matcher(part) for part in parts]

    def test(text: str) -> bool:
        given = text.split(":", 5)
        return len(given) == 6 and all(matches(part) for matches, part in zip(tests, given, strict=True))

    return test


def _number(value: str) -> Decimal:
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError("not a number")
    return number


def _moment(value: str) -> float:
    """Unix time, of ISO 8601 or of seconds. Without a zone it is UTC."""
    if value.isascii() and value.isdigit():
        return float(value)
    moment = datetime.fromisoformat(value)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _compared(convert: Callable[[str], Any], holds: Callable[[Any, Any], bool]) -> Callable[[str], Test]:
    def make(value: str) -> Test:
        limit = convert(value)
        return _safely(convert, lambda given: holds(given, limit))

    return make


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "equals": lambda given, limit: bool(given == limit),
    "lessthan": lambda given, limit: bool(given < limit),
    "lessthanequals": lambda given, limit: bool(given <= limit),
    "greaterthan": lambda given, limit: bool(given > limit),
    "greaterthanequals": lambda given, limit: bool(given >= limit),
}
_OPERATORS: dict[str, Callable[[str], Test]] = {
    "stringequals": lambda value: value.__eq__,
    "stringequalsignorecase": _ignoring_case,
    "stringlike": matcher,
    "arnequals": _arn,
    "arnlike": _arn,
    "bool": _bool,
    "ipaddress": _address,
    **{f"numeric{name}": _compared(_number, holds) for name, holds in _COMPARISONS.items()},
    **{f"date{name}": _compared(_moment, holds) for name, holds in _COMPARISONS.items()},
}
_NEGATED = {
    "stringnotequals": "stringequals",
    "stringnotequalsignorecase": "stringequalsignorecase",
    "stringnotlike": "stringlike",
    "arnnotequals": "arnequals",
    "arnnotlike": "arnlike",
    "notipaddress": "ipaddress",
    "numericnotequals": "numericequals",
    "datenotequals": "dateequals",
}
