"""Bytes to requests: what is understood, what is refused, and that cuts between the bytes mean nothing."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distribution_manager.sqs.http.messages import Headers, Problem
from distribution_manager.sqs.http.reader import HEAD_BYTES_MAX, BadRequestError, RequestReader

BODY_BYTES_MAX = 1_000
HEAD = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: y\r\n\r\n"


class Seen(NamedTuple):
    method: str
    path: str
    query: str
    headers: dict[str, list[str]]
    body: bytes
    keep_alive: bool
    problem: Problem | None


class Read(NamedTuple):
    """Whole requests, the problem that ended the reading, and whether a head is left without its body."""

    requests: list[Seen]
    problem: Problem | None
    partial: bool


def read(*parts: bytes) -> Read:
    reader = RequestReader(BODY_BYTES_MAX)
    problem = None
    for part in parts:
        try:
            reader.feed(part)
        except BadRequestError as error:
            problem = error.problem
            break
    requests = [
        Seen(
            request.method,
            request.path,
            request.query,
            {name: request.headers.getall(name) for name in request.headers},
            request.body,
            request.keep_alive,
            request.problem,
        )
        for request in reader.complete
    ]
    return Read(requests, problem, reader.partial is not None)


def only(*parts: bytes) -> Seen:
    requests, problem, partial = read(*parts)
    assert (problem, partial) == (None, False)
    assert len(requests) == 1
    return requests[0]


def refused(sent: bytes) -> int:
    requests, problem, _ = read(sent + GET)
    assert requests == [], "nothing of it is served, nor what follows"
    assert problem is not None
    return problem.status


# --- what is understood --------------------------------------------------------------------------------------------


def test_a_request() -> None:
    request = only(HEAD + b"X-A: 1\r\nx-a:  2 \t\r\nX-Empty:\r\nContent-Length: 3\r\n\r\nabc")
    headers = {"host": ["x"], "x-a": ["1", "2"], "x-empty": [""], "content-length": ["3"]}
    assert request == Seen("POST", "/a", "b=c", headers, b"abc", True, None)


def test_bytes_that_are_no_utf_8_are_kept() -> None:
    assert only(HEAD + b"X: \xff\xc3\xa9\r\n\r\n").headers["x"][0].encode("utf-8", "surrogateescape") == b"\xff\xc3\xa9"


def test_names_that_are_missing() -> None:
    headers = Headers([(b"A", b"1")])
    assert headers.getall("a") == ["1"]
    with pytest.raises(KeyError):
        headers.getall("b")


def test_chunks_their_extensions_and_trailers() -> None:
    chunks = b'3;a=b;c="d"\r\nabc\r\n00A\r\n0123456789\r\n0\r\nX-Amz-Target: evil\r\n\r\n'
    request, after = read(CHUNKED + chunks + GET).requests
    assert request.body == b"abc0123456789"
    assert "x-amz-target" not in request.headers, "a trailer is no header"
    assert after.headers == {"host": ["y"]}, "nor one of the next request"


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://host:1/a/b?c=http://d", "/a/b", "c=http://d"),
        (b"https://host", "/", ""),
        (b"HTTP://host?a=b", "/", "a=b"),
        (b"*", "*", ""),
        (b"//a//b", "//a//b", ""),
        (b"/a%2Fb?c%3D=%ff", "/a%2Fb", "c%3D=%ff"),
    ],
)
def test_targets(target: bytes, path: str, query: str) -> None:
    request = only(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: Keep-Alive, Close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", True),
    ],
)
def test_keeping_the_connection(version: bytes, connection: bytes, keeps: bool) -> None:
    """After the last request nothing is read, be it a request or not."""
    sent = b"GET / HTTP/" + version + b"\r\nHost: x\r\n" + connection + b"\r\n"
    assert only(sent).keep_alive is keeps
    assert len(read(sent + GET).requests) == 1 + keeps
    assert len(read(sent, GET).requests) == 1 + keeps
    assert keeps or read(sent + b"\0", b"\0") == read(sent)


def test_empty_lines_before_a_request() -> None:
    assert only(b"\r\n\r\n" + GET).method == "GET"


@pytest.mark.parametrize("parts", [1, 2])
def test_an_upgrade_is_passed_over(parts: int) -> None:
    upgrade = HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    for body, more in (
        (b"", b"\r\n"),
        (b"", b"Content-Length: 0\r\n\r\n"),
        (b"ab", b"Content-Length: 2\r\n\r\nab"),
        (b"ab", b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n"),
    ):
        sent = upgrade + more + GET + upgrade + more + GET
        requests, problem, partial = read(*([sent] if parts == 1 else [sent[:9] + sent[9:-7], sent[-7:]]))
        assert (problem, partial) == (None, False)
        assert [(each.method, each.path, each.body) for each in requests] == [
            ("POST", "/a", body),
            ("GET", "/", b""),
        ] * 2


def test_connect_is_a_request_like_others() -> None:
    requests, problem, _ = read(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n" + GET)
    assert ([each.method for each in requests], problem) == (["CONNECT", "GET"], None)


@pytest.mark.parametrize(
    "one",
    [b"CONNECT a:1 HTTP/1.1\r\nHost:a\r\n\r\n", b"GET / HTTP/1.1\r\nHost:a\r\nConnection:upgrade\r\nUpgrade:b\r\n\r\n"],
    ids=["CONNECT", "Upgrade"],
)
def test_upgrades_in_a_row_as_many_as_are_fed_at_once(one: bytes) -> None:
    """Each has a parser of its own, but no call within the last one's."""
    count = HEAD_BYTES_MAX // len(one)
    requests, problem, partial = read(one * count)
    assert (len(requests), problem, partial) == (count, None, False)


# --- bounds --------------------------------------------------------------------------------------------------------


def test_the_head_is_bounded() -> None:
    most = HEAD_BYTES_MAX - len(HEAD + b"X: \r\n\r\n")
    assert only(HEAD + b"X: " + b"a" * most + b"\r\n\r\n").method == "POST"
    for endless in (HEAD + b"X: ", HEAD, b"GET /", b"\r\n"):
        filler = {HEAD: b"X: y\r\n", b"\r\n": b"\r\n"}.get(endless, b"a") * HEAD_BYTES_MAX
        _, problem, _ = read(endless, filler[:HEAD_BYTES_MAX])
        assert problem is not None
        assert problem.status == 431


@pytest.mark.parametrize("filler", [b"0\r\nX: ", b"0\r\n", b"1;"], ids=["trailer", "trailers", "extension"])
def test_what_comes_with_a_body_is_bounded(filler: bytes) -> None:
    more = (b"X: y\r\n" if filler == b"0\r\n" else b"a") * HEAD_BYTES_MAX
    _, problem, _ = read(CHUNKED + filler, more[:HEAD_BYTES_MAX], more[:HEAD_BYTES_MAX])
    assert problem is not None
    assert problem.status == 431


def test_a_body_that_is_too_large_is_dropped_and_reading_goes_on() -> None:
    for more in (
        b"Content-Length: 1001\r\n\r\n" + b"a" * 1_001,
        b"Transfer-Encoding: chunked\r\n\r\n"
        + b"1f4\r\n"
        + b"a" * 500
        + b"\r\n1f5\r\n"
        + b"b" * 501
        + b"\r\n0\r\n\r\n",
    ):
        large, after = read(HEAD + more + GET).requests
        assert large.problem == Problem(413, "HTTP content length exceeded 1000 bytes.")
        assert large.body == b""
        assert (after.method, after.problem) == ("GET", None)
    assert only(HEAD + b"Content-Length: 1000\r\n\r\n" + b"a" * 1_000).problem is None


def test_too_large_is_known_from_the_head() -> None:
    reader = RequestReader(BODY_BYTES_MAX)
    reader.feed(HEAD + b"Content-Length: 1001\r\n\r\n")
    assert reader.partial is not None
    assert reader.partial.problem is not None


# --- what is refused, for others might read it otherwise -----------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"Content-Length: 2, 2\r\n\r\nab",
        b"Content-Length: +2\r\n\r\nab",
        b"Content-Length: -2\r\n\r\nab",
        b"Content-Length: 0x2\r\n\r\nab",
        b"Content-Length: 2 2\r\n\r\nab",
        b"Content-Length:\r\n\r\n",
        b"Content-Length: 99999999999999999999999\r\n\r\nab",
        b"Content-Length : 2\r\n\r\nab",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"X: a\r\n b\r\n\r\n",
        b"X: a\r\n\tb\r\n\r\n",
        b"X: a\nY: b\r\n\r\n",
        b"X: a\rY: b\r\n\r\n",
        b"X: a\r\n\n",
        b"X: a\0b\r\n\r\n",
        b"X\0: a\r\n\r\n",
        b"X Y: a\r\n\r\n",
        b": a\r\n\r\n",
        b"X\r\n\r\n",
        b"Host: y\r\n\r\n",
    ],
)
def test_heads_that_can_be_read_in_two_ways(more: bytes) -> None:
    assert refused(HEAD + more) == 400


@pytest.mark.parametrize(
    "chunks",
    [
        b"2\nab\r\n0\r\n\r\n",
        b"2\r\nab\n0\r\n\r\n",
        b"2\r\nabc\r\n0\r\n\r\n",
        b"2\r\nab0\r\n\r\n",
        b"0x2\r\nab\r\n0\r\n\r\n",
        b"+2\r\nab\r\n0\r\n\r\n",
        b"2 \r\nab\r\n0\r\n\r\n",
        b" 2\r\nab\r\n0\r\n\r\n",
        b"\r\nab\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nab\r\n0\r\n\r\n",
        b"2;a\nb\r\nab\r\n0\r\n\r\n",
        b"0\r\nX\r\n\r\n",
        b"0\r\nX: a\n\r\n",
    ],
)
def test_chunks_that_can_be_read_in_two_ways(chunks: bytes) -> None:
    assert refused(CHUNKED + chunks) == 400


@pytest.mark.parametrize("coding", [b"gzip", b"gzip, chunked", b"xchunked", b"identity", b"chunked;a=b", b'"chunked"'])
def test_other_transfer_codings(coding: bytes) -> None:
    assert refused(HEAD + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n") in (400, 501)
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: "
    assert refused(HEAD + upgrade + coding + b"\r\n\r\n0\r\n\r\n") in (400, 501)


def test_a_known_coding_that_is_not_ours() -> None:
    assert refused(HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n") == 501


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"FLY / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0",
    ],
)
def test_what_is_no_request(sent: bytes) -> None:
    assert refused(sent) == 400


def test_what_came_before_a_bad_one_is_kept() -> None:
    requests, problem, _ = read(GET + GET + b"\0")
    assert len(requests) == 2
    assert problem is not None


# --- any split -----------------------------------------------------------------------------------------------------

tokens = st.sampled_from([b"X-A", b"x-a", b"Expect", b"Content-Type", b"Connection", b"Upgrade"])
values = st.sampled_from(
    [b"", b"a", b" b c ", b"close", b"keep-alive", b"h2c", b"Upgrade", b"\xff", b"\t", b"\n", b"\0"]
)
bodies = st.binary(max_size=40)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    lines = [draw(st.sampled_from([b"GET / HTTP/1.1", b"POST /a?b HTTP/1.1", b"POST http://h/ HTTP/1.0", b"HEAD * X"]))]
    lines += [b"Host: x"] * draw(st.sampled_from([1, 1, 1, 1, 0, 2]))
    lines += [name + b": " + value for name, value in draw(st.lists(st.tuples(tokens, values), max_size=3))]
    body = draw(bodies)
    framing = draw(st.integers(0, 4))
    if framing == 1:
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == 2:
        lines.append(b"Transfer-Encoding: chunked")
        cut = draw(st.integers(0, len(body)))
        pieces = [piece for piece in (body[:cut], body[cut:]) if piece]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n"
        body += draw(st.sampled_from([b"", b"X-T: 1\r\n"])) + b"\r\n"
    elif framing == 3:
        lines.append(b"Content-Length: %d" % draw(st.sampled_from([1_001, 5_000])))
        body *= 60
    else:
        body = b""
    return b"\r\n".join([*lines, b"", b""]) + body


@settings(max_examples=400, deadline=None)
@given(st.lists(messages(), min_size=1, max_size=4).map(b"".join), st.data())
def test_any_split_gives_the_same_requests(sent: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=8)))
    whole = read(sent)
    assert read(*(sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True))) == whole
    assert read(*(bytes([byte]) for byte in sent)) == whole


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(messages(), st.binary(max_size=30)), min_size=1, max_size=3).map(b"".join), st.data())
def test_damaged_bytes_end_in_a_problem_or_in_requests(sent: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(sent)))
    damaged = sent[:at] + data.draw(st.binary(max_size=3)) + sent[at + data.draw(st.integers(0, 3)) :]
    whole = read(damaged)
    assert read(*(bytes([byte]) for byte in damaged)) == whole
    assert whole.problem is None or whole.problem.status in (400, 501)
