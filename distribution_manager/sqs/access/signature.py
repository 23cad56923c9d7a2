"""AWS Signature Version 4, checked: what a request says about its signature, and whether that is so.

Model: pure functions of the request as it was sent (path and query percent-encoded as on the wire), a secret, and the
time. Two forms: in the Authorization header, and in the query of a presigned URL.
Invariant: ``check`` returns only where the signature covers the method, path, query, body, host and every header that
decides what is done; anything else raises SqsError.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple, NoReturn, Protocol
from urllib.parse import quote, unquote_to_bytes

from distribution_manager.sqs import errors
from distribution_manager.sqs.errors import SqsError

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "sqs"
TERMINATOR = "aws4_request"
SKEW_SECONDS_MAX = 15 * 60
EXPIRES_SECONDS_MAX = 7 * 24 * 3600
QUERY_PAIRS_MAX = 2_000
SIGNING_KEYS_MAX = 64
"""Derived keys kept per secret: one for each day and region in use. Past this, all are derived anew."""

_TERMS = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=([^/,= ]+)/(\d{8})/([^/,= ]+)/([^/,= ]+)/aws4_request, *SignedHeaders=([^, ]+), *",
    re.ASCII,
)
_SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TIMESTAMP = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9_~-]+)+", re.ASCII)
_PLAIN_QUERY = re.compile(r"(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})*", re.ASCII)
_BOUND_HEADERS = ("x-amz-target", "x-amz-security-token", "x-amz-content-sha256", "x-amz-date")
"""Headers that must be signed where they are present: they decide what is done, or by whom."""
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
)


class Headers(Protocol):
    """By names in lower case; ``getall`` raises KeyError where there is none."""

    def get(self, name: str, /) -> str | None: ...

    def getall(self, name: str, /) -> list[str]: ...


class Terms(NamedTuple):
    """What a client's signatures of one day have in common. ``unsigned``: the bound headers that are not signed."""

    access_key_id: str
    date: str
    region: str
    service: str
    names: tuple[str, ...]
    unsigned: tuple[str, ...]
    scope: str


class Claim(NamedTuple):
    """What a request says about its signature. ``expires_s`` is None in the header form."""

    terms: Terms
    signature: str
    timestamp: str
    expires_s: int | None


class Message(NamedTuple):
    """A request as it was sent: ``path`` and ``query`` still percent-encoded, ``body`` still compressed."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes


class SigningKeys:
    """The keys derived from one secret, kept per day, region and service."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._keys: dict[str, bytes] = {}

    def of(self, terms: Terms) -> bytes:
        key = self._keys.get(terms.scope)
        if key is None:
            if len(self._keys) >= SIGNING_KEYS_MAX:
                self._keys.clear()
            key = f"AWS4{self._secret}".encode()
            for part in (terms.date, terms.region, terms.service, TERMINATOR):
                key = hmac.digest(key, part.encode("utf-8", "surrogateescape"), "sha256")
            self._keys[terms.scope] = key
        return key


# --- reading -------------------------------------------------------------------------------------------------------


def read_claim(headers: Headers, query: str) -> Claim:
    """Raises SqsError: MissingAuthenticationToken, IncompleteSignature."""
    authorization = headers.get("authorization")
    if authorization is not None:
        return _from_header(headers, authorization)
    if "X-Amz-" in query:
        given = _decoded_query(query)
        if "X-Amz-Algorithm" in given or "X-Amz-Signature" in given:
            return _from_query(given)
    raise SqsError(errors.MISSING_AUTHENTICATION, "Request is missing Authentication Token")


def _from_header(headers: Headers, authorization: str) -> Claim:
    before, _, signature = authorization.rpartition("Signature=")
    terms = _read_terms(before)
    timestamp = headers.get("x-amz-date") or _http_date(headers.get("date"))
    if terms is None or timestamp is None or not _SIGNATURE.fullmatch(signature):
        _complain_of_header(authorization, timestamp)
    return Claim(terms, signature, timestamp, None)


@lru_cache(maxsize=4096)
def _read_terms(text: str) -> Terms | None:
    """Of an Authorization header without its signature: the same for all that a client sends on one day."""
    match = _TERMS.fullmatch(text)
    return None if match is None else _terms(*match.groups())


def _terms(access_key_id: str, date: str, region: str, service: str, signed_headers: str) -> Terms:
    names = tuple(signed_headers.split(";"))
    unsigned = tuple(name for name in _BOUND_HEADERS if name not in names)
    return Terms(access_key_id, date, region, service, names, unsigned, f"{date}/{region}/{service}/{TERMINATOR}")


def _complain_of_header(authorization: str, timestamp: str | None) -> NoReturn:
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != ALGORITHM:
        raise _incomplete(f"Unsupported AWS 'algorithm': '{algorithm[:40]}'.")
    names = {part.strip().partition("=")[0] for part in rest.split(",")}
    missing = [
        f"Authorization header requires '{name}' parameter."
        for name in ("Credential", "Signature", "SignedHeaders")
        if name not in names
    ]
    if timestamp is None:
        missing.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    raise _incomplete(" ".join(missing) or "The Authorization header is not of the form that AWS defines.")


def _from_query(given: Mapping[str, str]) -> Claim:
    if given.get("X-Amz-Algorithm") != ALGORITHM:
        raise _incomplete(f"Unsupported AWS 'algorithm': '{given.get('X-Amz-Algorithm', '')[:40]}'.")
    wanted = ("X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date", "X-Amz-Expires")
    missing = [f"AWS query-string parameters must include '{name}'." for name in wanted if not given.get(name)]
    if missing:
        raise _incomplete(" ".join(missing))
    parts = given["X-Amz-Credential"].split("/")
    if len(parts) != 5 or parts[4] != TERMINATOR or not all(parts):
        raise _incomplete("X-Amz-Credential must be <access key id>/<date>/<region>/<service>/aws4_request.")
    expires = given["X-Amz-Expires"]
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 7 and 0 < int(expires) <= EXPIRES_SECONDS_MAX):
        raise _incomplete(f"X-Amz-Expires must be a number of seconds from 1 to {EXPIRES_SECONDS_MAX}.")
    access_key_id, date, region, service, _ = parts
    terms = _terms(access_key_id, date, region, service, given["X-Amz-SignedHeaders"])
    return Claim(terms, given["X-Amz-Signature"], given["X-Amz-Date"], int(expires))


def _http_date(text: str | None) -> str | None:
    """The Date header, as a timestamp: RFC 7231's form, or the timestamp itself."""
    if text is None or _TIMESTAMP.fullmatch(text):
        return text
    try:
        return datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").strftime("%Y%m%dT%H%M%SZ")  # noqa: DTZ007 - GMT
    except ValueError:
        return None


def _incomplete(message: str) -> SqsError:
    return SqsError(errors.INCOMPLETE_SIGNATURE, message)


def _mismatch(message: str = _MISMATCH) -> SqsError:
    return SqsError(errors.SIGNATURE_DOES_NOT_MATCH, message)


# --- checking ------------------------------------------------------------------------------------------------------


def check_scope(claim: Claim, regions: frozenset[str], service: str, now_s: float) -> None:
    """The right service, region and day, and in time. ``regions`` empty: any. Raises SqsError."""
    terms = claim.terms
    if terms.service != service:
        raise _mismatch(f"Credential should be scoped to correct service: '{service}'.")
    if regions and terms.region not in regions:
        raise _mismatch("Credential should be scoped to a valid region.")
    stamp_s = _seconds(claim.timestamp)
    if stamp_s is None or claim.timestamp[:8] != terms.date:
        raise _mismatch(f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date {terms.date}.")
    if stamp_s - now_s > SKEW_SECONDS_MAX:
        raise _mismatch(
            f"Signature not yet current: {claim.timestamp} is still later than {_stamp(now_s + SKEW_SECONDS_MAX)} "
            f"({_stamp(now_s)} + 15 min.)"
        )
    if claim.expires_s is not None:
        if now_s - stamp_s > claim.expires_s:
            raise SqsError(errors.REQUEST_EXPIRED, "Request has expired.")
    elif now_s - stamp_s > SKEW_SECONDS_MAX:
        raise _mismatch(
            f"Signature expired: {claim.timestamp} is now earlier than {_stamp(now_s - SKEW_SECONDS_MAX)} "
            f"({_stamp(now_s)} - 15 min.)"
        )


@lru_cache(maxsize=256)
def _seconds(timestamp: str) -> float | None:
    """Unix time. Cached, as requests of one second share it."""
    if not _TIMESTAMP.fullmatch(timestamp):
        return None
    try:
        return datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")


def check(claim: Claim, keys: SigningKeys, message: Message) -> None:
    """Whether the owner of ``keys`` signed this. Raises SqsError."""
    headers = message.headers
    digest = sha256(message.body).hexdigest()
    declared = headers.get("x-amz-content-sha256")
    if declared is not None and declared != digest:
        if declared.startswith(("UNSIGNED-PAYLOAD", "STREAMING-")):
            raise _mismatch(f"The body must be signed: {declared[:40]} is not taken.")
        raise _mismatch("The provided x-amz-content-sha256 header does not match what was computed.")
    presigned = claim.expires_s is not None
    _check_names(claim.terms, headers, presigned)
    expected = sign(keys.of(claim.terms), claim, canonical_request(message, claim.terms.names, digest, presigned))
    if not hmac.compare_digest(expected, claim.signature.encode("utf-8", "surrogateescape")):
        raise _mismatch()


def _check_names(terms: Terms, headers: Headers, presigned: bool) -> None:
    if "host" not in terms.names:
        raise _mismatch("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
    for name in terms.unsigned:
        # a presigned URL says the date itself; a header of that name then means nothing
        if headers.get(name) is not None and not (presigned and name == "x-amz-date"):
            raise _mismatch(f"'{name}' must be a 'SignedHeader' in the AWS Authorization.")


def sign(key: bytes, claim: Claim, canonical: str) -> bytes:
    """The signature, 64 hex digits."""
    digest = sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    text = f"{ALGORITHM}\n{claim.timestamp}\n{claim.terms.scope}\n{digest}"
    return hmac.digest(key, text.encode("utf-8", "surrogateescape"), "sha256").hex().encode()


# --- the canonical request -----------------------------------------------------------------------------------------


def canonical_request(message: Message, names: tuple[str, ...], digest: str, presigned: bool = False) -> str:
    """``names``: the signed headers, lower case, as the client ordered them. ``digest``: the body's, in hex."""
    getall = message.headers.getall
    try:
        lines = [f"{name}:{_header(getall(name))}" for name in names]
    except KeyError as missing:
        raise _mismatch(f"The signed header {missing} is not in the request.") from None
    query = canonical_query(message.query, presigned) if message.query else ""
    return "\n".join((message.method, canonical_path(message.path), query, *lines, "", ";".join(names), digest))


def _header(values: list[str]) -> str:
    """Trimmed, runs of white space as one space, several values with commas in between."""
    if len(values) == 1 and " " not in values[0] and values[0].isprintable():
        return values[0]
    return ",".join(" ".join(value.split()) for value in values)


@lru_cache(maxsize=4096)
def canonical_path(path: str) -> str:
    """Without empty and dot segments, and then encoded once more than it was sent."""
    if path == "/" or _PLAIN_PATH.fullmatch(path):
        return path
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    slash = "/" if kept and path.endswith("/") else ""
    return quote(f"/{'/'.join(kept)}{slash}", safe="/-_.~", errors="surrogateescape")


def canonical_query(query: str, presigned: bool = False) -> str:
    """Names and values encoded the one way, sorted by encoded name, then by value; a signature left out."""
    pairs = [(_encoded(name), _encoded(value)) for name, value in _pairs(query)]
    if presigned:
        pairs = [pair for pair in pairs if pair[0] != "X-Amz-Signature"]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _pairs(query: str) -> list[tuple[str, str]]:
    parts = query.split("&", QUERY_PAIRS_MAX)
    if len(parts) > QUERY_PAIRS_MAX:
        raise SqsError(errors.MALFORMED_QUERY, f"A query has at most {QUERY_PAIRS_MAX} parameters.")
    return [part.partition("=")[::2] for part in parts if part]


def _encoded(text: str) -> str:
    if _PLAIN_QUERY.fullmatch(text) and not _needless(text):
        return text
    return quote(_bytes(text), safe="-_.~")


def _bytes(text: str) -> bytes:
    """What a name or value stands for. A ``+`` is a space, as the operation's parameters are read, and so is signed as
    one: taken for a plus, a signature over ``%2B`` would pass for a request whose meaning is another."""
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape").replace(b"+", b" "))


_needless = re.compile(r"%(?:2[DE]|3\d|4[1-9A-F]|5[0-9AF]|6[1-9A-F]|7[0-9AE])").search
"""Finds an encoded character that needs no encoding (and a few others: those are only looked at more closely)."""


def _decoded_query(query: str) -> dict[str, str]:
    """The first value of each name."""
    decoded: dict[str, str] = {}
    for name, value in _pairs(query):
        decoded.setdefault(_decoded(name), _decoded(value))
    return decoded


def _decoded(text: str) -> str:
    return _bytes(text).decode("utf-8", "replace")
