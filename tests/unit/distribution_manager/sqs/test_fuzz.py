"""Whatever arrives, in either protocol, is answered with 200 or 4xx and a body that clients can parse."""

from __future__ import annotations

import asyncio
import base64
import json
import string
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distribution_manager.sqs.config import SqsConfig
from distribution_manager.sqs.handler import make_endpoint
from distribution_manager.sqs.http.messages import Headers, Request, Response
from distribution_manager.sqs.operations import OPERATIONS
from shadow_nodes.protocol.handles import encode_handle

from .fake_backend import FakeBackend

FUZZ = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

NAMES = sorted(
    {name for operation in OPERATIONS.values() for name in operation.request.__struct_encode_fields__}
    | {"Id", "DataType", "StringValue", "BinaryValue", "StringListValues", "Nonsense"}
)
QUEUES = ["orders", "orders.fifo", "none", "http://x/000000000000/orders", "http://x/1/orders.fifo", "//"]
QUEUE_ATTRIBUTES: dict[str, dict[str, str]] = {
    "orders": {},
    "orders.fifo": {"FifoQueue": "true", "ContentBasedDeduplication": "true"},
}
HANDLES = [encode_handle(f"{queue:016x}/0", key, 1) for queue in (1, 2, 3) for key in (1, 2)]
words = st.one_of(
    st.sampled_from(
        [*QUEUES, *HANDLES, "All", "VisibilityTimeout", "RedrivePolicy", "FifoQueue", "Policy", "String", "x"]
    ),
    st.sampled_from(
        ["true", "5", "-1", "", "null", "Binary", "Number", "AWSTraceHeader", "arn:aws:sqs:r:1:orders", "{}"]
    ),
    st.binary(max_size=8).map(lambda value: base64.b64encode(value).decode()),
    st.text(max_size=20),
)
numbers = st.one_of(st.integers(-2, 12), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
leaves = st.one_of(words, numbers, st.booleans(), st.none())
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=8,
)
requests = st.dictionaries(st.sampled_from(NAMES), st.one_of(words, trees), max_size=7)

values = st.fixed_dictionaries(
    {"DataType": st.sampled_from(["String", "Number", "Binary", "String.x", "x"])},
    optional={"StringValue": words, "BinaryValue": words},
)
message = {"MessageBody": words, "ReceiptHandle": words, "VisibilityTimeout": st.integers(-1, 43_201)}
message_options = {
    "DelaySeconds": st.integers(-1, 901),
    "MessageAttributes": st.dictionaries(words, values, max_size=2),
    "MessageDeduplicationId": words,
    "MessageGroupId": words,
    "MessageSystemAttributes": st.dictionaries(st.just("AWSTraceHeader"), values),
}
entries = st.lists(
    st.fixed_dictionaries({"Id": st.sampled_from(["a", "b", "c", "d e"]), **message}, optional=message_options),
    max_size=3,
)
plausible = st.fixed_dictionaries(
    {
        "QueueUrl": st.sampled_from(["orders", "orders", "orders.fifo", *QUEUES]),
        "QueueName": words,
        "Attributes": st.dictionaries(words, words, max_size=2),
        "Tags": st.dictionaries(words, words, max_size=2),
        "TagKeys": st.lists(words, min_size=1, max_size=2),
        "Label": words,
        "AWSAccountIds": st.just(["123456789012"]),
        "Actions": st.lists(st.sampled_from(["*", "SendMessage", "Fly"]), max_size=9),
        "Entries": entries,
        **message,
    },
    optional={
        "MaxNumberOfMessages": st.integers(-1, 11),
        "AttributeNames": st.lists(words, max_size=2),
        "MessageAttributeNames": st.lists(words, max_size=2),
        **message_options,
    },
)


class Endpoint:
    """The handler without a network: every request arrives whole."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._backend = FakeBackend()
        self._handle = make_endpoint(self._backend, SqsConfig(purge_interval_seconds=0)).handle

    async def _make_queues(self) -> None:
        """Again where an example has deleted them."""
        for name, attributes in QUEUE_ATTRIBUTES.items():
            if name not in self._backend.queues:
                await self._backend.create_queue(name, attributes, {}, None)

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Response:
        return self._runner.run(self._answer(method, path, headers, body))

    async def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Response:
        await self._make_queues()
        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        request = Request(method, path, Headers(fields))
        request.body = body
        return await self._handle(request)

    def close(self) -> None:
        self._runner.close()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.close()


def check_json(response: Response) -> None:
    body = response.body
    assert isinstance(body, bytes)
    decoded = json.loads(body)
    assert response.status == 200 or 400 <= response.status < 500, body
    assert (response.status == 200) != ("__type" in decoded)


def check_xml(response: Response) -> None:
    body = response.body
    assert isinstance(body, bytes)
    tag = ElementTree.fromstring(body).tag
    assert response.status == 200 or 400 <= response.status < 500, body
    assert (response.status == 200) != tag.endswith("}ErrorResponse")


def json_headers(operation: str) -> dict[str, str]:
    return {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"AmazonSQS.{operation}"}


operations = st.sampled_from(sorted(OPERATIONS))


@given(operations, st.one_of(requests, plausible))
@FUZZ
def test_json_of_the_right_names(endpoint: Endpoint, operation: str, request: dict[str, Any]) -> None:
    check_json(endpoint.answer("POST", "/", json_headers(operation), json.dumps(request).encode()))


@given(operations, st.one_of(st.binary(max_size=200), trees.map(lambda tree: json.dumps(tree).encode())))
@FUZZ
def test_json_of_any_bytes(endpoint: Endpoint, operation: str, body: bytes) -> None:
    check_json(endpoint.answer("POST", "/", json_headers(operation), body))


def flattened(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """As the Query protocol spells it, with the JSON names in place of the elements'."""
    element = {"Entries": "SendMessageBatchRequestEntry", "AWSAccountIds": "AWSAccountId", "Actions": "ActionName"}
    name = element.get(prefix, prefix.removesuffix("s"))
    if isinstance(value, list):
        for number, item in enumerate(value, 1):
            yield from flattened(f"{name}.{number}", item)
    elif isinstance(value, dict) and prefix.endswith("s"):
        for number, (key, item) in enumerate(value.items(), 1):
            yield f"{name}.{number}.{'Key' if name == 'Tag' else 'Name'}", key
            yield from flattened(f"{name}.{number}.Value", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from flattened(f"{prefix}.{key}", item)
    else:
        yield prefix, str(value)


@given(operations, st.one_of(requests, plausible), st.sampled_from(["/", "/000000000000/orders"]), st.booleans())
@FUZZ
def test_query_of_the_right_names(
    endpoint: Endpoint, operation: str, request: dict[str, Any], path: str, get: bool
) -> None:
    pairs = [("Action", operation)]
    for name, value in request.items():
        pairs += flattened(name, value)
    form = urlencode(pairs)
    if get:
        check_xml(endpoint.answer("GET", f"{path}?{form}", {}, b""))
    else:
        check_xml(endpoint.answer("POST", path, {"Content-Type": "application/x-www-form-urlencoded"}, form.encode()))


parameter_names = st.lists(
    st.sampled_from(
        [*NAMES, "Attribute", "Tag", "SendMessageBatchRequestEntry", "1", "2", "Name", "Value", "Key", "", "٣"]
    ),
    min_size=1,
    max_size=9,
).map(".".join)


@given(operations, st.lists(st.tuples(parameter_names, words), max_size=8))
@FUZZ
def test_query_of_any_names(endpoint: Endpoint, operation: str, pairs: list[tuple[str, str]]) -> None:
    form = urlencode([("Action", operation), *pairs])
    check_xml(endpoint.answer("POST", "/", {}, form.encode()))


@given(st.binary(max_size=200), st.text(string.printable.replace("\r", "").replace("\n", ""), max_size=40))
@FUZZ
def test_anything(endpoint: Endpoint, body: bytes, value: str) -> None:
    check_xml(endpoint.answer("POST", "/", {"Content-Type": value}, body))
    check_json(endpoint.answer("POST", "/", {"X-Amz-Target": value}, body))
