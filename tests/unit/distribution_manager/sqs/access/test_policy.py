"""Policies as SQS users write them; what is not supported is refused."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribution_manager.sqs.access.conditions import PolicyError
from distribution_manager.sqs.access.patterns import matcher
from distribution_manager.sqs.access.policy import Access, Verdict, read_policy

QUEUE = "arn:aws:sqs:us-east-1:000000000000:orders"
ME = Access("arn:aws:iam::000000000000:user/me", "000000000000", "SendMessage", QUEUE)
STRANGER = Access("arn:aws:iam::111122223333:user/them", "111122223333", "SendMessage", QUEUE)


def statement(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": QUEUE}
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def verdict(*statements: dict[str, Any], access: Access = ME, version: str = "2012-10-17", **context: str) -> Verdict:
    policy = read_policy(json.dumps({"Version": version, "Statement": list(statements)}))
    return policy.verdict(access, lambda: {key.replace("_", ":", 1): value for key, value in context.items()})


# --- statements ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("principal", "mine", "theirs"),
    [
        ("*", "ALLOW", "ALLOW"),
        ({"AWS": "*"}, "ALLOW", "ALLOW"),
        ({"AWS": ["111122223333", ME.principal]}, "ALLOW", "DELEGATED"),
        ({"AWS": "arn:aws:iam::111122223333:root"}, "NOTHING", "DELEGATED"),
        ({"AWS": "arn:aws:iam::111122223333:user/them"}, "NOTHING", "ALLOW"),
        ({"Service": "sns.amazonaws.com"}, "NOTHING", "NOTHING"),
        ({"Service": ["events.amazonaws.com"], "AWS": "000000000000"}, "DELEGATED", "NOTHING"),
    ],
)
def test_principals(principal: Any, mine: str, theirs: str) -> None:
    assert verdict(statement(Principal=principal)).name == mine
    assert verdict(statement(Principal=principal), access=STRANGER).name == theirs


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"Action": "SQS:sendmessage"}, True),
        ({"Action": "sqs:Send*"}, True),
        ({"Action": "sqs:?endMessage"}, True),
        ({"Action": ["sqs:ReceiveMessage", "SQS:*"]}, True),
        ({"Action": "*"}, True),
        ({"Action": "sqs:ReceiveMessage"}, False),
        ({"Action": "sqs:SendMessageBatch"}, False),
        ({"Action": None, "NotAction": "sqs:ReceiveMessage"}, True),
        ({"Action": None, "NotAction": ["sqs:Send*"]}, False),
        ({"Resource": "*"}, True),
        ({"Resource": "arn:aws:sqs:*:000000000000:ord*"}, True),
        ({"Resource": [QUEUE + "2", "arn:aws:sqs:us-east-1:000000000000:other"]}, False),
        ({"Resource": None, "NotResource": QUEUE}, False),
    ],
)
def test_actions_and_resources(changes: dict[str, Any], allowed: bool) -> None:
    assert (verdict(statement(**changes)) is Verdict.ALLOW) is allowed


def test_a_deny_wins() -> None:
    deny = statement(Effect="Deny", Principal={"AWS": "000000000000"}, Action="sqs:*")
    for order in ([statement(), deny], [deny, statement()]):
        assert verdict(*order) is Verdict.DENY
        assert verdict(*order, access=STRANGER) is Verdict.ALLOW
    assert verdict(statement(Principal={"AWS": "000000000000"}), statement()) is Verdict.ALLOW


def test_one_statement_needs_no_list() -> None:
    assert read_policy(json.dumps({"Statement": statement()})).verdict(ME, dict) is Verdict.ALLOW


# --- conditions ----------------------------------------------------------------------------------------------------

CONDITIONS: list[tuple[dict[str, Any], dict[str, str], bool]] = [
    ({"StringEquals": {"aws:username": "me"}}, {"aws_username": "me"}, True),
    ({"StringEquals": {"aws:username": ["you", "me"]}}, {"aws_username": "me"}, True),
    ({"StringEquals": {"aws:username": "me"}}, {"aws_username": "Me"}, False),
    ({"StringEquals": {"aws:username": "me"}}, {}, False),
    ({"StringEqualsIfExists": {"aws:username": "me"}}, {}, True),
    ({"StringEqualsIfExists": {"aws:username": "me"}}, {"aws_username": "you"}, False),
    ({"StringEqualsIgnoreCase": {"AWS:UserName": "ME"}}, {"aws_username": "me"}, True),
    ({"StringNotEquals": {"aws:username": ["you", "me"]}}, {"aws_username": "me"}, False),
    ({"StringNotEquals": {"aws:username": ["you", "they"]}}, {"aws_username": "me"}, True),
    ({"StringNotEquals": {"aws:SourceVpce": "vpce-1"}}, {}, True),
    ({"StringLike": {"aws:username": "m*"}}, {"aws_username": "me"}, True),
    ({"StringNotLike": {"aws:username": "m?"}}, {"aws_username": "me"}, False),
    ({"ArnEquals": {"aws:SourceArn": "arn:aws:sns:us-east-1:1:t"}}, {}, False),
    ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/*"}}, {"aws_principalarn": ME.principal}, True),
    ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam:*:1:u"}}, {"aws_principalarn": "arn:aws:iam:a:b:1:u"}, False),
    ({"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::1:user/*"}}, {"aws_principalarn": ME.principal}, True),
    ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"aws_sourceip": "10.1.2.3"}, True),
    ({"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "2001:db8::/32"]}}, {"aws_sourceip": "2001:db8::1"}, True),
    ({"IpAddress": {"aws:SourceIp": "10.0.0.1"}}, {"aws_sourceip": "10.0.0.2"}, False),
    ({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"aws_sourceip": "11.1.2.3"}, True),
    ({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"aws_sourceip": "10.1.2.3"}, False),
    ({"Bool": {"aws:SecureTransport": "false"}}, {"aws_securetransport": "false"}, True),
    ({"Bool": {"aws:SecureTransport": True}}, {"aws_securetransport": "false"}, False),
    ({"Bool": {"aws:MultiFactorAuthPresent": "true"}}, {}, False),
    ({"BoolIfExists": {"aws:MultiFactorAuthPresent": "true"}}, {}, True),
    ({"Null": {"aws:MultiFactorAuthPresent": "true"}}, {}, True),
    ({"Null": {"aws:username": False}}, {"aws_username": "me"}, True),
    ({"Null": {"aws:username": True}}, {"aws_username": "me"}, False),
    ({"NumericLessThan": {"aws:EpochTime": 10}}, {"aws_epochtime": "9"}, True),
    ({"NumericGreaterThanEquals": {"aws:EpochTime": "10"}}, {"aws_epochtime": "9"}, False),
    ({"NumericNotEquals": {"aws:EpochTime": "9.0"}}, {"aws_epochtime": "9"}, False),
    ({"NumericLessThan": {"aws:username": 10}}, {"aws_username": "me"}, False),
    (
        {"DateLessThan": {"aws:CurrentTime": "2030-01-01T00:00:00Z"}},
        {"aws_currenttime": "2026-11-21T23:00:00+00:00"},
        True,
    ),
    ({"DateGreaterThan": {"aws:CurrentTime": "2030-01-01"}}, {"aws_currenttime": "2026-11-21T23:00:00+00:00"}, False),
    ({"DateGreaterThan": {"aws:EpochTime": "1700000000"}}, {"aws_epochtime": "1700000001"}, True),
    ({"StringEquals": {"aws:ResourceTag/Team": "blue"}}, {"aws_resourcetag/team": "blue"}, True),
    (
        {"StringEquals": {"aws:username": "me"}, "Bool": {"aws:SecureTransport": "true"}},
        {"aws_username": "me", "aws_securetransport": "false"},
        False,
    ),
]


@pytest.mark.parametrize(("condition", "context", "holds"), CONDITIONS)
def test_conditions(condition: dict[str, Any], context: dict[str, str], holds: bool) -> None:
    assert (verdict(statement(Condition=condition), **context) is Verdict.ALLOW) is holds


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"Effect": "allow"}, "Effect"),
        ({"Principal": None}, "Principal"),
        ({"Principal": "me"}, "Principal"),
        ({"Principal": {}}, "Principal"),
        ({"Principal": {"AWS": []}}, "Principal"),
        ({"Principal": {"AWS": "arn:aws:iam::000000000000:user/*"}}, "not an account"),
        ({"Principal": {"Federated": "x"}}, "Federated is not supported"),
        ({"Principal": None, "NotPrincipal": "*"}, "NotPrincipal is not supported"),
        ({"Action": None}, "Action or NotAction"),
        ({"NotAction": "sqs:*"}, "Action or NotAction"),
        ({"Action": "sns:Publish"}, "Action sns:Publish is not one of SQS"),
        ({"Action": "sqs:SendMessages"}, "Action sqs:SendMessages is not one of SQS"),
        ({"Action": []}, "Action must be"),
        ({"Resource": None}, "Resource or NotResource"),
        ({"Resource": "orders"}, "not the ARN of a queue"),
        ({"Resource": "arn:aws:s3:::bucket"}, "not the ARN of a queue"),
        ({"Resource": "arn:aws:sqs:us-east-1:1:${aws:username}"}, "variables"),
        ({"Condition": []}, "Condition"),
        ({"Condition": {"StringEquals": "x"}}, "object of keys"),
        ({"Condition": {"StringSounds": {"aws:username": "x"}}}, "operator StringSounds is not supported"),
        ({"Condition": {"ForAllValues:StringLike": {"aws:username": "x"}}}, "is not supported"),
        ({"Condition": {"StringEquals": {"aws:RequestTag/x": "x"}}}, "key aws:RequestTag/x is not supported"),
        ({"Condition": {"StringEquals": {"aws:username": []}}}, "values"),
        ({"Condition": {"StringEquals": {"aws:username": {}}}}, "value"),
        ({"Condition": {"StringEquals": {"aws:username": "${aws:userid}"}}}, "variables"),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/33"}}}, "cannot compare"),
        ({"Condition": {"NumericEquals": {"aws:EpochTime": "nan"}}}, "cannot compare"),
        ({"Condition": {"DateEquals": {"aws:CurrentTime": "soon"}}}, "cannot compare"),
        ({"Condition": {"Bool": {"aws:SecureTransport": "maybe"}}}, "true or false"),
        ({"Condition": {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam:*"}}}, "cannot compare"),
        ({"Sid": 1}, "Sid"),
        ({"Effects": "x"}, "element Effects"),
    ],
)
def test_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(PolicyError, match=text.replace("$", r"\$")):
        verdict(statement(**changes))


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"Statement": "x"}', '{"Statement": [1]}', '{"Statements": []}', "{}"]
)
def test_not_policies(text: str) -> None:
    with pytest.raises(PolicyError):
        read_policy(text)


def test_variables_are_plain_text_in_the_older_version() -> None:
    condition = {"StringEquals": {"aws:username": "${x}"}}
    assert verdict(statement(Condition=condition), version="2008-10-17", aws_username="${x}") is Verdict.ALLOW


# --- wildcards -----------------------------------------------------------------------------------------------------


@given(st.text("ab*?[.\n", max_size=8), st.text("ab[.\n", max_size=12))
def test_wildcards_are_as_in_a_shell(pattern: str, text: str) -> None:
    assert matcher(pattern)(text) == fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def test_no_pattern_is_slow() -> None:
    assert not matcher("*a" * 500 + "b")("a" * 2_000)
