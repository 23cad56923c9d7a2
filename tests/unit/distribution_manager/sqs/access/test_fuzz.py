"""Hostile signatures over raw HTTP: each is answered with an error of SQS's, never with a 500 or a dead connection."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from distribution_manager.core.metadata import AccessKeyRecord
from distribution_manager.sqs.access.gate import SignatureGate
from distribution_manager.sqs.access.keys import KeyRing
from distribution_manager.sqs.config import SqsConfig

SECRET = "a-secret-of-some-length"
RECORDS = {"AKIA1": AccessKeyRecord(access_key_id="AKIA1", user="me", secret=SECRET)}
SOME = b"\0\x01\t \"%&'+,/;=?\\AWS4-HMACabc019:\x7f\x80\xc3\xa9\xff\r\n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    from ..conftest import Server

    config = SqsConfig()
    server = Server(config, SignatureGate(config, KeyRing(RECORDS.get, config.account, now_s=lambda: 0.0)))
    yield server.port
    server.close()


def ask(port: int, request: bytes) -> bytes:
    """The answer's status line and what follows, until the server has nothing more to say."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    return answer


def check(answer: bytes) -> None:
    assert answer.startswith(b"HTTP/1.1 4"), answer[:200]
    assert b"InternalFailure" not in answer


def signed(port: int) -> dict[str, str]:
    headers = {"X-Amz-Target": "AmazonSQS.ListQueues", "Content-Type": "application/x-amz-json-1.0"}
    request = AWSRequest("POST", f"http://127.0.0.1:{port}/", headers, b"{}")
    botocore.auth.SigV4Auth(Credentials("AKIA1", SECRET), "sqs", "us-east-1").add_auth(request)
    return {"Host": f"127.0.0.1:{port}", "Content-Length": "2", **dict(request.headers.items())}


def send(port: int, headers: dict[str, bytes]) -> bytes:
    lines = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in headers.items())
    return ask(port, b"POST / HTTP/1.1\r\n" + lines + b"Connection: close\r\n\r\n{}")


Edit = tuple[int, int, bytes]
EDITS = st.lists(
    st.tuples(
        st.integers(0, 300), st.integers(0, 3), st.lists(st.sampled_from([bytes([b]) for b in SOME[:-2]])).map(b"".join)
    ),
    min_size=1,
    max_size=4,
)


def edited(text: bytes, edits: list[Edit]) -> bytes:
    """Some bytes cut out, and others put in."""
    for place, length, more in edits:
        at = place % (len(text) + 1)
        text = text[:at] + more + text[at + length :]
    return text


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["Authorization", "X-Amz-Date", "X-Amz-Target", "Host"]), EDITS)
def test_headers(port: int, name: str, edits: list[Edit]) -> None:
    headers = {key: value.encode() for key, value in signed(port).items()}
    assert send(port, headers).startswith(b"HTTP/1.1 200")
    changed = edited(headers[name], edits)
    if changed.split() != headers[name].split():
        check(send(port, {**headers, name: changed}))


@settings(max_examples=150, deadline=None)
@given(EDITS, st.booleans())
def test_queries(port: int, edits: list[Edit], json: bool) -> None:
    request = AWSRequest("GET", f"http://127.0.0.1:{port}/?Action=ListQueues")
    botocore.auth.SigV4QueryAuth(Credentials("AKIA1", SECRET), "sqs", "us-east-1", expires=60).add_auth(request)
    query = request.url.partition("?")[2].encode()
    changed = edited(query, edits).replace(b" ", b"%20")
    method, more = (b"POST", b"X-Amz-Target: AmazonSQS.ListQueues\r\n") if json else (b"GET", b"")
    head = method + b" /?%b HTTP/1.1\r\nHost: 127.0.0.1:" + str(port).encode() + b"\r\n" + more
    answer = ask(port, head.replace(b"%b", changed) + b"Connection: close\r\n\r\n")
    if not answer.startswith(b"HTTP/1.1 200"):
        check(answer)


@pytest.mark.parametrize(
    "value",
    [
        b"\xff\xfe",
        b"AWS4-HMAC-SHA256 Credential=\xff/20150830/\xff/sqs/aws4_request, SignedHeaders=\xff, Signature=" + b"0" * 64,
    ],
)
def test_bytes_that_are_no_text(port: int, value: bytes) -> None:
    headers = {key: text.encode() for key, text in signed(port).items()}
    check(send(port, {**headers, "Authorization": value}))
    del headers["X-Amz-Target"]
    check(send(port, {**headers, "Authorization": value, "Content-Type": b"application/x-www-form-urlencoded"}))
    check(
        ask(port, b"GET /?X-Amz-Signature=\xff&X-Amz-Algorithm=\xff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    )
