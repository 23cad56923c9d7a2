"""Signatures against AWS's published test suite, and against botocore's own signer."""

from __future__ import annotations

import datetime
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from distribution_manager.sqs.access.signature import (
    SIGNING_KEYS_MAX,
    Claim,
    Message,
    SigningKeys,
    canonical_path,
    canonical_query,
    check,
    check_scope,
    read_claim,
)
from distribution_manager.sqs.errors import SqsError

KEY_ID, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
THEN = datetime.datetime(2015, 8, 30, 12, 36, tzinfo=datetime.UTC)
NOW_S = THEN.timestamp()
ANY: frozenset[str] = frozenset()


def refused(code: str, message: Message, *, secret: str = SECRET, service: str = "sqs", now_s: float = NOW_S) -> str:
    with pytest.raises(SqsError) as raised:
        verify(message, secret=secret, service=service, now_s=now_s)
    assert raised.value.kind.query_code == code
    return str(raised.value)


def verify(message: Message, *, secret: str = SECRET, service: str = "sqs", now_s: float = NOW_S) -> Claim:
    claim = read_claim(message.headers, message.query)
    check_scope(claim, ANY, service, now_s)
    check(claim, SigningKeys(secret), message)
    return claim


# --- AWS's test suite ----------------------------------------------------------------------------------------------

VECTORS: dict[str, tuple[str, str, list[tuple[str, str]], bytes, str, str]] = {
    # name: (method, path?query, headers, body, signed headers, signature)
    "header-key-duplicate": (
        "GET",
        "/",
        [("My-Header1", "value2"), ("My-Header1", "value2"), ("My-Header1", "value1")],
        b"",
        "host;my-header1;x-amz-date",
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
    ),
    "header-value-trim": (
        "GET",
        "/",
        [("My-Header1", " value1"), ("My-Header2", ' "a   b   c"')],
        b"",
        "host;my-header1;my-header2;x-amz-date",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    "utf8": (
        "GET",
        "/ሴ",
        [],
        b"",
        "host;x-amz-date",
        "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
    ),
    "query-order-key-case": (
        "GET",
        "/?Param2=value2&Param1=value1",
        [],
        b"",
        "host;x-amz-date",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    "session-token": (
        "GET",
        "/",
        [("X-Amz-Security-Token", "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267")],
        b"",
        "host;x-amz-date;x-amz-security-token",
        "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
    ),
    "utf8-query": (
        "GET",
        "/?ሴ=bar",
        [],
        b"",
        "host;x-amz-date",
        "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
    ),
    "relative-relative": (
        "GET",
        "/example1/example2/../..",
        [],
        b"",
        "host;x-amz-date",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    "pointless-dot": (
        "GET",
        "/./example",
        [],
        b"",
        "host;x-amz-date",
        "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5",
    ),
    "space": (
        "GET",
        "/example space/",
        [],
        b"",
        "host;x-amz-date",
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
    ),
    "query-unreserved": (
        "GET",
        "/?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
        "=-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        [],
        b"",
        "host;x-amz-date",
        "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
    ),
    "post-header": (
        "POST",
        "/",
        [("My-Header1", "value1")],
        b"",
        "host;my-header1;x-amz-date",
        "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
    ),
    "post-form": (
        "POST",
        "/",
        [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Content-Length", "13"),
            ("x-amz-content-sha256", "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e"),
        ],
        b"Param1=value1",
        "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
        "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
    ),
}
"""Requests and their signatures as AWS publishes them (github.com/awslabs/aws-c-auth, tests/aws-signing-test-suite/v4,
header form; the one with a folded header is left out, as no HTTP server takes those any more). There, paths and queries
are given as they are encoded once."""


@pytest.mark.parametrize("name", VECTORS)
def test_published_vectors(name: str) -> None:
    method, target, more, body, signed_headers, signature = VECTORS[name]
    path, _, query = target.partition("?")
    headers = CIMultiDict([("Host", "example.amazonaws.com"), *more, ("X-Amz-Date", "20150830T123600Z")])
    headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={signed_headers}, Signature={signature}"
    )
    message = Message(method, path, query, headers, body)
    assert verify(message, service="service").terms.access_key_id == KEY_ID
    refused("SignatureDoesNotMatch", message._replace(body=body + b"x"), service="service")


@pytest.mark.parametrize(
    ("path", "signature"),
    [
        ("//example//", "c1834e8fb0307243711f0f907f6ab7311ed300d87f13792d7ee4da89ab93e082"),
        ("/./", "e93c787ed7f371d5c6b165c1b38ede9550f4dce4144713e844b25b7192d3865d"),
    ],
)
def test_published_presigned_vectors(path: str, signature: str) -> None:
    query = (
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fservice%2Faws4_request"
        f"&X-Amz-Date=20150830T123600Z&X-Amz-SignedHeaders=host&X-Amz-Expires=3600&X-Amz-Signature={signature}"
    )
    headers = CIMultiDict([("Host", "example.amazonaws.com"), ("X-Amz-Date", "20150830T123600Z")])
    message = Message("GET", path, query, headers, b"")
    verify(message, service="service", now_s=NOW_S + 3600)
    assert refused("RequestExpired", message, service="service", now_s=NOW_S + 3601) == "Request has expired."
    refused("SignatureDoesNotMatch", message._replace(path="/other"), service="service")
    refused("SignatureDoesNotMatch", message._replace(query=query + "&Action=DeleteQueue"), service="service")


# --- botocore's signer ---------------------------------------------------------------------------------------------

PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
SEGMENT = st.text("abcXYZ019-_.~ %é/", max_size=8)
QUERY = st.lists(
    st.tuples(st.text("aB1-_.~", min_size=1, max_size=4), st.text("aB1-_.~ &=%é*/", max_size=8)), max_size=4
)
HEADER_VALUE = st.text(st.sampled_from("aB1;,=/ \t\"'-"), max_size=12)


def sign(  # noqa: PLR0917
    method: str,
    segments: list[str],
    query: list[tuple[str, str]],
    headers: dict[str, str],
    body: bytes,
    token: str | None = None,
    expires_s: int | None = None,
) -> Message:
    """What botocore would send."""
    from urllib.parse import quote

    path = "/" + "/".join(quote(segment, safe="~") for segment in segments)
    text = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query)
    request = AWSRequest(method, f"http://localhost:9324{path}{'?' if text else ''}{text}", dict(headers), body)
    credentials = Credentials(KEY_ID, SECRET, token)
    signer: Any = (
        botocore.auth.SigV4Auth(credentials, "sqs", "eu-west-1")
        if expires_s is None
        else botocore.auth.SigV4QueryAuth(credentials, "sqs", "eu-west-1", expires=expires_s)
    )
    with mock.patch("botocore.auth.get_current_datetime", return_value=THEN.replace(tzinfo=None)):
        signer.add_auth(request)
    parts = urlsplit(request.url)
    sent = CIMultiDict([("Host", "localhost:9324"), *((name, str(value)) for name, value in request.headers.items())])
    return Message(method, parts.path, parts.query, sent, body)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["GET", "POST"]),
    st.lists(SEGMENT, max_size=4),
    QUERY,
    st.dictionaries(st.sampled_from(["X-Amz-Target", "Content-Type", "X-My", "My-Header"]), HEADER_VALUE),
    st.binary(max_size=64),
    st.none() | PRINTABLE,
    st.data(),
)
def test_what_botocore_signs_is_accepted_and_nothing_else(  # noqa: PLR0917
    method: str,
    segments: list[str],
    query: list[tuple[str, str]],
    headers: dict[str, str],
    body: bytes,
    token: str | None,
    data: st.DataObject,
) -> None:
    message = sign(method, segments, query, headers, body, token)
    claim = verify(message)
    assert (claim.terms.access_key_id, claim.terms.region) == (KEY_ID, "eu-west-1")

    changed = data.draw(
        st.sampled_from(["method", "path", "query", "body", "secret", *claim.terms.names]), label="change"
    )
    if changed == "secret":
        refused("SignatureDoesNotMatch", message, secret=SECRET[:-1] + "Z")
        return
    if changed in Message._fields:
        other = {
            "method": "PUT",
            "path": message.path.rstrip("/") + "/x",
            "query": (message.query + "&" if message.query else "") + "x=y",
            "body": body + b"\0" if not body else bytes([body[0] ^ 1]) + body[1:],
        }[changed]
        refused("SignatureDoesNotMatch", message._replace(**{changed: other}))
        return
    altered = CIMultiDict(message.headers)
    value = altered[changed]
    altered[changed] = value + "x" if changed != "x-amz-date" else value.replace("20150830T123600Z", "20150830T123601Z")
    refused("SignatureDoesNotMatch", message._replace(headers=altered))


@settings(max_examples=100, deadline=None)
@given(st.lists(SEGMENT, max_size=3), QUERY, st.none() | PRINTABLE, st.integers(1, 604_800), st.data())
def test_presigned_by_botocore(
    segments: list[str], query: list[tuple[str, str]], token: str | None, expires_s: int, data: st.DataObject
) -> None:
    assume(all(value for _, value in query) and len({name for name, _ in query}) == len(query))
    message = sign("GET", segments, query, {}, b"", token, expires_s)
    verify(message, now_s=NOW_S + expires_s)
    refused("RequestExpired", message, now_s=NOW_S + expires_s + 1)
    index = data.draw(st.integers(0, len(message.query) - 1))
    letter = message.query[index]
    assume(letter.isalnum())
    changed = message.query[:index] + ("0" if letter != "0" else "1") + message.query[index + 1 :]
    with pytest.raises(SqsError):
        verify(message._replace(query=changed))


@pytest.mark.parametrize("expires_s", [None, 60])
def test_a_space_may_be_sent_as_a_plus_and_a_plus_may_not(expires_s: int | None) -> None:
    """Forms are sent so (urlencode, URLSearchParams), and read so: what is signed is what is read."""
    query = [("Action", "SendMessage"), ("MessageBody", "one two")]
    message = sign("GET", [], query, {}, b"", None, expires_s)
    assert "one%20two" in message.query
    verify(message._replace(query=message.query.replace("one%20two", "one+two")))
    message = sign("GET", [], [("Action", "SendMessage"), ("MessageBody", "1+1")], {}, b"", None, expires_s)
    assert "1%2B1" in message.query
    verify(message)
    refused("SignatureDoesNotMatch", message._replace(query=message.query.replace("1%2B1", "1+1")))


def test_a_presigned_body_is_signed_too() -> None:
    message = sign("GET", [], [("Action", "ListQueues")], {}, b"", None, 60)
    refused("SignatureDoesNotMatch", message._replace(body=b"Action=DeleteQueue"))


# --- refusals ------------------------------------------------------------------------------------------------------


def signed(**headers: str) -> Message:
    return sign("POST", [], [], headers, b"{}")


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        (lambda a: None, "MissingAuthenticationToken", "Request is missing Authentication Token"),
        (lambda a: "Basic dXNlcg==", "IncompleteSignature", "Unsupported AWS 'algorithm': 'Basic'."),
        (lambda a: "", "IncompleteSignature", "Unsupported AWS 'algorithm'"),
        (
            lambda a: "AWS4-HMAC-SHA256 x",
            "IncompleteSignature",
            "requires 'Credential' parameter. Authorization header requires 'Signature' parameter.",
        ),
        (lambda a: a.replace("/aws4_request", ""), "IncompleteSignature", "not of the form"),
        (lambda a: a.replace("AWS4-HMAC", "AWS4-ECDSA"), "IncompleteSignature", "algorithm"),
        (lambda a: a.replace("/sqs/", "/sns/"), "SignatureDoesNotMatch", "scoped to correct service: 'sqs'"),
        (lambda a: a.replace("/20150830/", "/20150829/"), "SignatureDoesNotMatch", "Date in Credential scope"),
        (lambda a: a.replace("host;", ""), "SignatureDoesNotMatch", "'Host'"),
        (lambda a: a.replace(";x-amz-target", ""), "SignatureDoesNotMatch", "'x-amz-target' must be"),
        (lambda a: a.replace("host;", "host;missing;"), "SignatureDoesNotMatch", "'missing' is not in the request"),
        (lambda a: a[:-1] + ("0" if a[-1] != "0" else "1"), "SignatureDoesNotMatch", "does not match the signature"),
        (lambda a: a + "0", "IncompleteSignature", "not of the form"),
    ],
)
def test_refusals(change: Any, code: str, text: str) -> None:
    message = signed(**{"X-Amz-Target": "AmazonSQS.ListQueues"})
    headers = CIMultiDict(message.headers)
    authorization = change(headers.pop("Authorization"))
    if authorization is not None:
        headers["Authorization"] = authorization
    assert text in refused(code, message._replace(headers=headers))


def test_an_added_target_or_token_is_refused() -> None:
    for name in ("X-Amz-Target", "X-Amz-Security-Token"):
        message = signed()
        headers = CIMultiDict(message.headers)
        headers[name] = "x"
        assert "must be a 'SignedHeader'" in refused("SignatureDoesNotMatch", message._replace(headers=headers))


def test_bodies_must_be_signed() -> None:
    message = signed(**{"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    assert "UNSIGNED-PAYLOAD is not taken" in refused("SignatureDoesNotMatch", message)


@pytest.mark.parametrize(("late_s", "accepted"), [(-900, True), (900, True), (-901, False), (901, False)])
def test_clock_skew(late_s: int, accepted: bool) -> None:
    if accepted:
        verify(signed(), now_s=NOW_S + late_s)
    else:
        text = refused("SignatureDoesNotMatch", signed(), now_s=NOW_S + late_s)
        assert text.startswith("Signature expired: 2015" if late_s > 0 else "Signature not yet current: 2015")


def test_the_date_header_will_do() -> None:
    with pytest.raises(SqsError, match="'X-Amz-Date' or a 'Date' header"):
        read_claim(CIMultiDict({"Authorization": signed().headers.get("Authorization") or ""}), "")
    claim = read_claim(
        CIMultiDict(
            {"Authorization": signed().headers.get("Authorization") or "", "Date": "Sun, 30 Aug 2015 12:36:00 GMT"}
        ),
        "",
    )
    assert claim.timestamp == "20150830T123600Z"


def test_only_configured_regions() -> None:
    claim = read_claim(signed().headers, "")
    check_scope(claim, frozenset({"eu-west-1", "x"}), "sqs", NOW_S)
    with pytest.raises(SqsError, match="valid region"):
        check_scope(claim, frozenset({"us-east-1"}), "sqs", NOW_S)


@given(st.text(max_size=200), st.text(max_size=100))
def test_no_text_is_more_than_refused(authorization: str, query: str) -> None:
    headers = CIMultiDict({"Authorization": authorization, "X-Amz-Date": "20150830T123600Z"})
    for message in (
        Message("GET", "/", query, headers, b""),
        Message("GET", query, f"X-Amz-Signature=1&{query}", CIMultiDict[str](), b""),
    ):
        with pytest.raises(SqsError):
            verify(message)


def test_derived_keys_are_kept_within_bounds() -> None:
    keys = SigningKeys(SECRET)
    claim = read_claim(signed().headers, "")
    first = keys.of(claim.terms)
    for number in range(2 * SIGNING_KEYS_MAX):
        keys.of(claim.terms._replace(region=f"r{number}", scope=str(number)))
        assert len(keys._keys) <= SIGNING_KEYS_MAX
    assert keys.of(claim.terms) == first


def test_canonical_forms() -> None:
    assert canonical_path("/a%20b/%2F/..//c/") == "/a%2520b/c/"
    assert canonical_path("") == "/"
    assert canonical_query("b=2&a=%7e&a=1&c&=") == "=&a=1&a=~&b=2&c="
    assert canonical_query("a-=1&a=2&X-Amz-Signature=3", presigned=True) == "a=2&a-=1"
