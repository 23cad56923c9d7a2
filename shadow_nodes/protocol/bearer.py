"""The secret that managers and nodes of a cluster share, as HTTP carries it: ``Authorization: Bearer SECRET``."""

from __future__ import annotations

import hmac


def bearer_headers(secret: str) -> dict[str, str]:
    """What a request says. Nothing where there is no secret."""
    return {"Authorization": f"Bearer {secret}"} if secret else {}


def knows_secret(authorization: str, secret: str) -> bool:
    """Whether a request's Authorization header is right, in a time that tells nothing. True where there is no secret.

    A header's bytes that are no UTF-8 come as surrogates, and are compared as the bytes that they were.
    """
    given = authorization.encode("utf-8", "surrogateescape")
    return not secret or hmac.compare_digest(given, f"Bearer {secret}".encode())
