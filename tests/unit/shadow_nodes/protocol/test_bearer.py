"""The secret, as HTTP carries it."""

from __future__ import annotations

from shadow_nodes.protocol.bearer import bearer_headers, knows_secret


def test_the_right_secret() -> None:
    assert knows_secret(bearer_headers("s3cret")["Authorization"], "s3cret")


def test_anything_else() -> None:
    for given in ("", "s3cret", "Bearer ", "Bearer s3cre", "Bearer s3crets", "bearer s3cret", "Bearer s3cret\udcff"):
        assert not knows_secret(given, "s3cret")


def test_no_secret() -> None:
    assert bearer_headers("") == {}
    assert knows_secret("", "")
    assert knows_secret("Bearer whatever", "")
