"""Every operation of the model: with all its parameters, without those it needs, with those of a wrong type."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from msgspec import inspect

from distribution_manager.sqs.operations import OPERATIONS as OURS

from . import model
from .conftest import CLIENT_REGION, OWNER_REGION, Bench
from .examples import EXAMPLES, UNUSABLE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

REQUIRED = [
    (operation, member)
    for operation in sorted(model.OPERATIONS)
    for member in model.SHAPES[model.input_shape(operation)].get("required", ())
]
MEMBERS = [(operation, member) for operation in sorted(model.OPERATIONS) for member in model.input_members(operation)]
OF_BOTH = ["GetQueueAttributes", "ListMessageMoveTasks", "ReceiveMessage", "SendMessage", "SendMessageBatch"]
NUMBERS = [
    (operation, member) for operation, member in MEMBERS if model.input_members(operation)[member].endswith("Integer")
]
WRONG = {"string": {"a": 1}, "integer": "x", "list": {"a": 1}, "map": ["a"]}
"""By a member's type: what is none of it, and cannot be read as one."""


def test_the_queues_are_owned_elsewhere(benches: dict[str, Bench]) -> None:
    bench = benches["json"]
    url = bench.queue()
    bench.sent(url)
    assert bench.owner_of(url) == OWNER_REGION
    assert bench.endpoint == bench.cluster.endpoints[CLIENT_REGION]
    assert url.startswith(bench.endpoint)


def our_paths(kind: inspect.Type, prefix: str = "") -> set[str]:
    """The members of a request's struct, nested ones too, as ``model.member_paths`` has them."""
    match kind:
        case inspect.StructType():
            found = set()
            for field in kind.fields:
                path = f"{prefix}.{field.encode_name}" if prefix else field.encode_name
                found |= {path} | our_paths(field.type, path)
            return found
        case inspect.UnionType():
            return set().union(*(our_paths(each, prefix) for each in kind.types))
        case inspect.ListType():
            return our_paths(kind.item_type, prefix)
        case inspect.DictType():
            return our_paths(kind.value_type, prefix)
        case _:
            return set()


def test_no_member_of_the_model_is_unknown_here() -> None:
    """An unknown member would be ignored; so each that the model has must be one of ours, nested ones too."""
    assert OURS.keys() == model.OPERATIONS.keys()
    for operation in model.OPERATIONS:
        ours = our_paths(inspect.type_info(OURS[operation].request))
        ours = {path for path in ours if path.rpartition(".")[2] not in model.RESERVED}
        assert model.member_paths(model.input_shape(operation)) == ours - (
            {"Tags"} if operation == "CreateQueue" else set()
        )


@pytest.mark.parametrize("operation", sorted(model.OPERATIONS))
def test_with_every_parameter(bench: Bench, operation: str) -> None:
    parameters = EXAMPLES[operation](bench)
    shape = model.input_shape(operation)
    assert model.used_paths(shape, parameters) == model.member_paths(shape) - UNUSABLE
    bodies: list[bytes] = []
    event = f"after-call.sqs.{operation}"
    bench.sqs.meta.events.register(event, lambda http_response, **_: bodies.append(http_response.content), "raw")
    try:
        answer = getattr(bench.sqs, model.method_name(operation))(**parameters)
    finally:
        bench.sqs.meta.events.unregister(event, unique_id="raw")
    metadata = answer.pop("ResponseMetadata")
    assert metadata["HTTPStatusCode"] == 200
    assert metadata["RequestId"]
    output = model.OPERATIONS[operation].get("output")
    if bench.protocol == "json" and output is not None:
        model.check_answer(output["shape"], json.loads(bodies[0]))
    elif bench.protocol == "json":
        assert bodies == [b"{}"]
    else:
        assert f'<{operation}Response xmlns="http://queue.amazonaws.com/doc/2012-11-05/">'.encode() in bodies[0]
        assert (f"<{operation}Result>".encode() in bodies[0]) == (output is not None)
    if output is None:
        assert not answer
    else:
        assert answer


@pytest.mark.parametrize("operation", OF_BOTH)
def test_both_protocols_answer_with_the_same_members(benches: dict[str, Bench], operation: str) -> None:
    paths = []
    for bench in benches.values():
        answer = getattr(bench.sqs, model.method_name(operation))(**EXAMPLES[operation](bench))
        answer.pop("ResponseMetadata")
        paths.append(model.used_paths(model.OPERATIONS[operation]["output"]["shape"], answer))
    assert paths[0] == paths[1]


@pytest.mark.parametrize(("operation", "member"), model.named(REQUIRED))
def test_without_what_it_needs(bench: Bench, operation: str, member: str) -> None:
    parameters = EXAMPLES[operation](bench)
    del parameters[member]
    with pytest.raises(ClientError) as caught:
        getattr(bench.sqs, model.method_name(operation))(**parameters)
    expected = "AWS.SimpleQueueService.EmptyBatchRequest" if member == "Entries" else "MissingParameter"
    assert caught.value.response["Error"]["Code"] == expected
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


@pytest.mark.parametrize(
    ("operation", "member", "code"),
    [
        ("SendMessageBatch", "Id", "MissingParameter"),
        ("SendMessageBatch", "MessageBody", "MissingParameter"),
        ("DeleteMessageBatch", "Id", "MissingParameter"),
        ("DeleteMessageBatch", "ReceiptHandle", "MissingParameter"),
        ("ChangeMessageVisibilityBatch", "Id", "MissingParameter"),
        ("ChangeMessageVisibilityBatch", "ReceiptHandle", "MissingParameter"),
    ],
)
def test_entries_without_what_they_need(bench: Bench, operation: str, member: str, code: str) -> None:
    parameters = EXAMPLES[operation](bench)
    del parameters["Entries"][0][member]
    with pytest.raises(ClientError, match=member) as caught:
        getattr(bench.sqs, model.method_name(operation))(**parameters)
    assert caught.value.response["Error"]["Code"] == code


@pytest.mark.parametrize(("operation", "member"), model.named(MEMBERS))
def test_with_a_wrong_type(benches: dict[str, Bench], operation: str, member: str) -> None:
    """Refused before anything is looked up, with an error that is the client's fault."""
    bench = benches["json"]
    kind = model.SHAPES[model.input_members(operation)[member]]["type"]
    body = json.dumps({"QueueUrl": f"{bench.endpoint}/000000000000/none", member: WRONG[kind]})
    headers = {"X-Amz-Target": f"AmazonSQS.{operation}", "Content-Type": "application/x-amz-json-1.0"}
    status, answer = post(bench.endpoint, body, headers)
    assert status == 400
    assert json.loads(answer)["__type"] == "com.amazon.coral.service#SerializationException"


@pytest.mark.parametrize(("operation", "member"), model.named(NUMBERS))
def test_with_a_number_that_is_none(benches: dict[str, Bench], operation: str, member: str) -> None:
    bench = benches["query"]
    parameters = {**EXAMPLES[operation](bench), member: "12x"}
    with pytest.raises(ClientError, match=member) as caught:
        getattr(bench.sqs, model.method_name(operation))(**parameters)
    assert caught.value.response["Error"]["Code"] == "InvalidParameterValue"


def post(endpoint: str, body: str, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=60)
    try:
        connection.request("POST", "/", body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_an_operation_that_does_not_exist(bench: Bench) -> None:
    """https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html"""
    if bench.protocol == "json":
        headers = {"X-Amz-Target": "AmazonSQS.Nonsense", "Content-Type": "application/x-amz-json-1.0"}
        status, answer = post(bench.endpoint, "{}", headers)
        assert "UnknownOperationException" in answer.decode()
    else:
        headers: Any = {"Content-Type": "application/x-www-form-urlencoded"}
        status, answer = post(bench.endpoint, "Action=Nonsense&Version=2012-11-05", headers)
        assert "<Code>InvalidAction</Code>" in answer.decode()
    assert status == 400


def test_another_version_of_the_api(benches: dict[str, Bench]) -> None:
    """https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonParameters.html"""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for version, expected in (("", 200), ("&Version=2012-11-05", 200), ("&Version=2009-02-01", 400)):
        status, answer = post(benches["query"].endpoint, f"Action=ListQueues{version}", headers)
        assert status == expected
        assert (b"<Code>NoSuchVersion</Code>" in answer) == (expected == 400)
