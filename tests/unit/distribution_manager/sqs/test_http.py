"""What boto3 cannot send: raw HTTP against the server. No input gives a 500 or costs the connection."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest

from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.sqs.backend import Unavailable
from distribution_manager.sqs.config import Caller, SqsConfig
from distribution_manager.sqs.errors import ACCESS_DENIED, SqsError
from distribution_manager.sqs.http.messages import Request
from shadow_nodes.protocol.limits import MIB

JSON = {"Content-Type": "application/x-amz-json-1.0"}
FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
NAMESPACE = "{http://queue.amazonaws.com/doc/2012-11-05/}"


def call(server: Any, operation: str, body: Any, **headers: str) -> tuple[int, Any, dict[str, Any]]:
    """(status, headers, decoded body) over JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body)
    status, answered, content = server.raw(raw, {**JSON, "X-Amz-Target": f"AmazonSQS.{operation}", **headers})
    assert answered["Content-Type"] == "application/x-amz-json-1.0"
    assert len(answered["x-amzn-RequestId"]) == 36
    return status, answered, json.loads(content)


def form(
    server: Any, parameters: dict[str, str], path: str = "/", method: str = "POST"
) -> tuple[int, ElementTree.Element]:
    """(status, decoded body) over Query."""
    encoded = urlencode(parameters)
    if method == "GET":
        status, headers, content = server.raw(None, {}, "GET", f"{path}?{encoded}")
    else:
        status, headers, content = server.raw(encoded, FORM, method, path)
    assert headers["Content-Type"] == "text/xml"
    return status, ElementTree.fromstring(content)


def text(tree: ElementTree.Element, path: str) -> str | None:
    return tree.findtext("/".join(NAMESPACE + part for part in path.split("/")))


@pytest.fixture
def url(server: Any) -> str:
    return str(call(server, "CreateQueue", {"QueueName": "orders"})[2]["QueueUrl"])


# --- JSON ----------------------------------------------------------------------------------------------------------


def test_error_headers_and_type(server: Any) -> None:
    status, headers, body = call(server, "SendMessage", {"QueueUrl": server.url_of("none"), "MessageBody": "x"})
    assert status == 400
    assert headers["x-amzn-query-error"] == "AWS.SimpleQueueService.NonExistentQueue;Sender"
    assert body == {"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "The specified queue does not exist."}
    status, headers, body = call(server, "SendMessage", {})
    assert (status, headers["x-amzn-query-error"]) == (400, "MissingParameter;Sender")
    assert body["message"] == "The request must contain the parameter QueueUrl."
    assert server.observed[-1] == ("SendMessage", "MissingParameter")


@pytest.mark.parametrize(
    ("body", "type_"),
    [
        (b"", "MissingRequiredParameterException"),
        (b"{", "SerializationException"),
        (b"[]", "SerializationException"),
        (b"null", "SerializationException"),
        (b'{"QueueUrl": 5}', "SerializationException"),
        (b'{"QueueUrl": "q", "MessageBody": {"a": 1}}', "SerializationException"),
        (b'{"QueueUrl": "q", "DelaySeconds": "5"}', "SerializationException"),
        (b'{"QueueUrl": "q", "DelaySeconds": 1e400}', "SerializationException"),
        (b'{"QueueUrl": "\xff"}', "SerializationException"),
        (b'{"MessageBody": "\\ud800", "QueueUrl": "q"}', "SerializationException"),
        (b'{"a":' * 5_000, "SerializationException"),
        (b"[" * 100_000, "SerializationException"),
        (b'{"MessageAttributes": {"a": {"BinaryValue": "*"}}}', "SerializationException"),
        (b"\x1f\x8b\x08", "SerializationException"),
        (b'{"QueueUrl": null}', "MissingRequiredParameterException"),
        (b'{"QueueUrl": "http://x/a b"}', "InvalidAddress"),
        (b'{"QueueUrl": "http://x/none", "Unknown": [1, {"a": null}]}', "QueueDoesNotExist"),
    ],
)
def test_bodies_that_are_no_request(server: Any, body: bytes, type_: str) -> None:
    status, _, answer = call(server, "SendMessage", body)
    assert status in (400, 404)
    assert answer["__type"].partition("#")[2] == type_


def test_wrong_target(server: Any) -> None:
    for target in ("AmazonSQS.Fly", "Fly", "", "DynamoDB.ListTables", "AmazonSQS.\u00e9"):
        status, _, body = server.raw(b"{}", {**JSON, "X-Amz-Target": target.encode("latin-1").decode("latin-1")})
        assert status == 400
        assert json.loads(body)["__type"].endswith("#UnknownOperationException")
    status, _, body = server.raw(b"{}", JSON)
    assert (status, json.loads(body)["__type"]) == (400, "com.amazon.coral.service#UnknownOperationException")


def test_charset_and_missing_content_type(server: Any) -> None:
    target = {"X-Amz-Target": "AmazonSQS.ListQueues"}
    for content_type in (
        {"Content-Type": "application/x-amz-json-1.0; charset=utf-8"},
        {"Content-Type": "application/json"},
        {},
    ):
        status, _, body = server.raw(b"{}", target | content_type)
        assert (status, body) == (200, b"{}")


def test_attribute_values_may_be_numbers(server: Any) -> None:
    attributes = {"VisibilityTimeout": 5, "FifoQueue": True, "Policy": None}
    status, _, _ = call(server, "CreateQueue", {"QueueName": "a.fifo", "Attributes": attributes})
    assert status == 200
    assert server.backend.queues["a.fifo"].attributes == {"VisibilityTimeout": "5", "FifoQueue": "true"}


def test_trace_header_over_http(server: Any, url: str) -> None:
    trace = "Root=1-5e3d83c1-e6a0db584850d61342823d4c"
    call(server, "SendMessage", {"QueueUrl": url, "MessageBody": "x"}, **{"X-Amzn-Trace-Id": trace})
    _, _, body = call(server, "ReceiveMessage", {"QueueUrl": url, "AttributeNames": ["AWSTraceHeader"]})
    assert body["Messages"][0]["Attributes"] == {"AWSTraceHeader": trace}


def test_unavailable_is_a_503(server: Any, url: str) -> None:
    server.backend.failure = Unavailable()
    status, headers, body = call(server, "SendMessage", {"QueueUrl": url, "MessageBody": "x"})
    assert (status, headers["x-amzn-query-error"]) == (503, "ServiceUnavailable;Receiver")
    assert body["message"]
    status, tree = form(server, {"Action": "ReceiveMessage", "QueueUrl": url})
    assert (status, text(tree, "Error/Type"), text(tree, "Error/Code")) == (503, "Receiver", "ServiceUnavailable")


def test_a_bug_is_a_500_and_logged(server: Any, url: str, caplog: pytest.LogCaptureFixture) -> None:
    server.backend.failure = ZeroDivisionError("secret detail")
    status, headers, body = call(server, "SendMessage", {"QueueUrl": url, "MessageBody": "x"})
    assert (status, headers["x-amzn-query-error"]) == (500, "InternalFailure;Receiver")
    assert "secret" not in body["message"]
    assert headers["x-amzn-RequestId"] in caplog.text


# --- Query ---------------------------------------------------------------------------------------------------------


def test_on_the_path_of_the_queue_by_post_and_get(server: Any, url: str) -> None:
    path = url.removeprefix(server.url)
    status, tree = form(server, {"Action": "SendMessage", "MessageBody": "a & b"}, path, "GET")
    assert status == 200
    assert tree.tag == NAMESPACE + "SendMessageResponse"
    assert len(text(tree, "SendMessageResult/MessageId") or "") == 36
    assert len(text(tree, "ResponseMetadata/RequestId") or "") == 36
    status, tree = form(server, {"Action": "ReceiveMessage", "AttributeName": "All", "VisibilityTimeout": "0"}, path)
    assert text(tree, "ReceiveMessageResult/Message/Body") == "a & b"
    status, tree = form(
        server, {"Action": "ReceiveMessage", "AttributeName.1": "SenderId", "AttributeName.2": "SentTimestamp"}, path
    )
    assert len(tree.findall(f".//{NAMESPACE}Attribute")) == 2
    status, tree = form(
        server, {"Action": "SetQueueAttributes", "Attribute.Name": "DelaySeconds", "Attribute.Value": "3"}, path
    )
    assert (status, server.backend.queues["orders"].attributes) == (200, {"DelaySeconds": "3"})
    assert [child.tag for child in tree] == [NAMESPACE + "ResponseMetadata"]


def test_query_keeps_what_json_would_take_for_something_else(server: Any, url: str) -> None:
    for body in ("null", "true", "5", "\r\n \t", "é😀"):
        status, _ = form(server, {"Action": "SendMessage", "QueueUrl": url, "MessageBody": body})
        assert status == 200
        status, tree = form(server, {"Action": "ReceiveMessage", "QueueUrl": url})
        assert text(tree, "ReceiveMessageResult/Message/Body") == body


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({}, "MissingAction"),
        ({"Action": "Fly<&>\x00"}, "InvalidAction"),
        ({"Action": "SendMessage"}, "MissingParameter"),
        ({"Action": "SendMessage", "QueueUrl": "http://x/none"}, "AWS.SimpleQueueService.NonExistentQueue"),
        ({"Action": "SendMessage", "QueueUrl.1": "x"}, "MalformedQueryString"),
        (
            {"Action": "SendMessage", "QueueUrl": "orders", "DelaySeconds": "x", "MessageBody": "y"},
            "InvalidParameterValue",
        ),
        ({"Action": "SendMessage", "QueueUrl": "orders", "DelaySeconds": "9" * 5_000}, "InvalidParameterValue"),
        ({"Action": "SendMessage", "A": "1", "A.B": "2"}, "MalformedQueryString"),
        ({"Action": "SendMessage", "A.B": "1", "A": "2"}, "MalformedQueryString"),
        ({"Action": "SendMessage", ".".join("a" * 50): "1"}, "MissingParameter"),
        ({"Action": "ReceiveMessage", "QueueUrl": "orders", "AttributeName.x": "All"}, "MalformedQueryString"),
        ({"Action": "ReceiveMessage", "QueueUrl": "orders", "AttributeName.1.x": "All"}, "MalformedQueryString"),
        ({"Action": "TagQueue", "QueueUrl": "orders", "Tag.1": "x"}, "MalformedQueryString"),
        ({"Action": "TagQueue", "QueueUrl": "orders", "Tag.1.Key.x": "x"}, "MalformedQueryString"),
        ({"Action": "TagQueue", "QueueUrl": "orders", "Tag.1.Key": "x", "Tag.y.Key": "x"}, "MalformedQueryString"),
        (
            {"Action": "SendMessageBatch", "QueueUrl": "orders", "SendMessageBatchRequestEntry.1": "x"},
            "MalformedQueryString",
        ),
        ({"Action": "SendMessage", "QueueUrl": "orders", "MessageAttribute.1.Name": "a"}, "MalformedQueryString"),
        (
            {
                "Action": "SendMessage",
                "QueueUrl": "orders",
                "MessageBody": "b",
                "MessageAttribute.1.Name": "a",
                "MessageAttribute.1.Value.DataType": "Binary",
                "MessageAttribute.1.Value.BinaryValue": "*",
            },
            "MalformedQueryString",
        ),
    ],
)
def test_forms_that_are_no_request(server: Any, url: str, parameters: dict[str, str], code: str) -> None:
    status, tree = form(server, parameters)
    assert status in (400, 404)
    assert text(tree, "Error/Code") == code
    assert text(tree, "Error/Type") == "Sender"
    assert len(text(tree, "RequestId") or "") == 36


def test_query_names_a_missing_queue_as_it_always_did(server: Any) -> None:
    _, tree = form(server, {"Action": "GetQueueUrl", "QueueName": "none"})
    assert text(tree, "Error/Message") == "The specified queue does not exist for this wsdl version."


def test_forms_that_cannot_be_read(server: Any) -> None:
    for body in (b"Action=%ff", b"Action=\xff", b"&".join(b"a%d=" % number for number in range(3_000))):
        status, _, content = server.raw(body, FORM)
        assert status == 400
        assert b"MalformedQueryString" in content


# --- HTTP ----------------------------------------------------------------------------------------------------------


def test_other_methods(server: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
        connection.request(method, "/000000000000/orders", b"x" if method == "PUT" else None)
        response = connection.getresponse()
        assert response.status == 405
        assert (b"InvalidHttpRequest" in response.read()) == (method != "HEAD")
    connection.request("GET", "/")
    response = connection.getresponse()
    assert response.status == 400
    assert b"MissingAction" in response.read()
    connection.close()


def test_connection_lives_on_after_bad_requests(server: Any, url: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.connect()
    held = connection.sock
    send = {**JSON, "X-Amz-Target": "AmazonSQS.SendMessage"}
    for body, headers in (
        (b"{", send),
        (b"", {}),
        (b"x" * (9 * MIB), send),
        (b"not gzip", {**send, "Content-Encoding": "gzip"}),
        (gzip.compress(b"{"), {**send, "Content-Encoding": "gzip"}),
    ):
        connection.request("POST", "/", body, headers)
        response = connection.getresponse()
        assert 400 <= response.status < 500
        response.read()
        assert connection.sock is held
    connection.request("POST", "/", json.dumps({"QueueUrl": url, "MessageBody": "x"}), send)
    assert connection.getresponse().status == 200
    connection.close()


def test_too_large(server: Any) -> None:
    status, _, body = call(server, "SendMessage", b"x" * (8 * MIB + 1))
    assert (status, body["message"]) == (413, f"HTTP content length exceeded {8 * MIB} bytes.")
    bomb = gzip.compress(b"\0" * (200 * MIB))
    status, _, body = call(server, "SendMessage", bomb, **{"Content-Encoding": "gzip"})
    assert status == 413


def test_gzip_and_chunks(server: Any, url: str) -> None:
    message = json.dumps({"QueueUrl": url, "MessageBody": "z" * 300_000}).encode()
    status, _, _ = call(server, "SendMessage", gzip.compress(message), **{"Content-Encoding": "gzip"})
    assert status == 200
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    headers = {**JSON, "X-Amz-Target": "AmazonSQS.SendMessage"}
    pieces = (message[start : start + 7_001] for start in range(0, len(message), 7_001))
    connection.request("POST", "/", pieces, headers, encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()


def test_expect_continue_and_pipelining(server: Any, url: str) -> None:
    body = json.dumps({"QueueUrl": url, "MessageBody": "x"}).encode()
    head = (
        f"POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-amz-json-1.0\r\n"
        f"X-Amz-Target: AmazonSQS.SendMessage\r\nContent-Length: {len(body)}\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200 OK\r\n")
        connection.sendall((head + b"\r\n" + body) * 5)
        received = b""
        while received.count(b"HTTP/1.1 200 OK") < 5:
            received += connection.recv(10_000)


def test_host_header_that_is_no_host(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            b"POST / HTTP/1.1\r\nHost: \xff\r\nX-Amz-Target: AmazonSQS.CreateQueue\r\nContent-Length: 17\r\n\r\n"
            b'{"QueueName":"a"}'
        )
        answer = connection.recv(10_000)
    assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 "))


# --- the gate ------------------------------------------------------------------------------------------------------


class Guard:
    """Knows one caller, who may send to ``orders`` only."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bool]] = []

    def admit(self, request: Request) -> None:
        return

    def authorize(self, request: Request, body: bytes) -> Caller:
        if request.headers.get("authorization") != "me":
            raise SqsError(ACCESS_DENIED, "Who are you?")
        return Caller("AIDAME", "arn:aws:iam::123456789012:user/me")

    def permit(self, caller: Caller, operation: str, queue_name: str, queue: QueueMetadata | None) -> None:
        self.asked.append((operation, queue_name, queue is not None))
        if queue_name == "secret":
            raise SqsError(ACCESS_DENIED, f"{caller.principal} is not authorized to perform: sqs:{operation}")


def test_gate_is_asked_before_and_after_parsing(serve: Callable[..., Any]) -> None:
    guard = Guard()
    server = serve(SqsConfig(), guard)
    status, headers, _ = call(server, "CreateQueue", b"{not even parsed")
    assert (status, headers["x-amzn-query-error"]) == (403, "AccessDenied;Sender")
    me = {"Authorization": "me"}
    assert call(server, "CreateQueue", {"QueueName": "secret"}, **me)[0] == 403
    url = call(server, "CreateQueue", {"QueueName": "orders"}, **me)[2]["QueueUrl"]
    call(server, "SendMessage", {"QueueUrl": url, "MessageBody": "x"}, **me)
    assert call(server, "SendMessage", {"QueueUrl": server.url_of("secret"), "MessageBody": "x"}, **me)[0] == 403
    call(server, "ListQueues", {}, **me)
    assert guard.asked == [
        ("CreateQueue", "secret", False),
        ("CreateQueue", "orders", False),
        ("SendMessage", "orders", True),
        ("SendMessage", "secret", False),
        ("ListQueues", "", False),
    ]
    _, _, body = call(server, "ReceiveMessage", {"QueueUrl": url, "AttributeNames": ["SenderId"]}, **me)
    assert body["Messages"][0]["Attributes"] == {"SenderId": "AIDAME"}
