"""Fast checks against obvious versions of them."""

from __future__ import annotations

import re
from hashlib import md5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribution_manager.sqs.config import SqsConfig
from distribution_manager.sqs.digests import Attribute, attributes_md5, pack_attributes, unpack_attributes
from distribution_manager.sqs.errors import SqsError
from distribution_manager.sqs.service import RECENT_MAX, Recent
from distribution_manager.sqs.validation import check_body, check_fifo_id, is_name, is_queue_name, utf8_length

anything = st.text(st.characters(exclude_categories=["Cs"]))


def accepts(check: object, *arguments: object) -> bool:
    assert callable(check)
    try:
        check(*arguments)
    except SqsError:
        return False
    return True


@given(anything)
def test_body_is_what_xml_can_say(text: str) -> None:
    valid = all(
        code in (9, 10, 13) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000
        for code in map(ord, text)
    )
    assert accepts(check_body, text) == valid


def test_no_printable_character_is_refused() -> None:
    """The shortcut in check_body rests on this."""
    refused = [code for code in range(0x110000) if not accepts(check_body, chr(code))]
    assert not any(chr(code).isprintable() for code in refused)
    assert len(refused) == 32 - 3 + 0x800 + 2


@given(st.one_of(anything, st.text("ab-_ é.", max_size=85)))
def test_names(text: str) -> None:
    assert is_name(text, 80) == bool(re.fullmatch("[A-Za-z0-9_-]{1,80}", text))
    assert is_queue_name(text) == bool(re.fullmatch(r"(?=.{1,80}\Z)[A-Za-z0-9_-]+(\.fifo)?", text))


@given(st.one_of(anything, st.text("ab~! é", max_size=130)))
def test_fifo_ids(text: str) -> None:
    assert accepts(check_fifo_id, text, "MessageGroupId") == bool(re.fullmatch("[!-~]{1,128}", text))


@given(anything)
def test_length(text: str) -> None:
    assert utf8_length(text) == len(text.encode())


@given(st.lists(st.tuples(anything, anything, st.one_of(anything, st.binary()))))
def test_attributes(attributes: list[Attribute]) -> None:
    expected = b""
    for name, data_type, value in attributes:
        for part in (name.encode(), data_type.encode()):
            expected += len(part).to_bytes(4, "big") + part
        expected += b"\2" if isinstance(value, bytes) else b"\1"
        encoded = value if isinstance(value, bytes) else value.encode()
        expected += len(encoded).to_bytes(4, "big") + encoded
    assert attributes_md5(attributes) == md5(expected).hexdigest()
    assert unpack_attributes(pack_attributes(attributes)) == attributes
    assert unpack_attributes(b"") == []


def test_recent_forgets() -> None:
    recent = Recent(60)
    for number in range(RECENT_MAX + 1):
        recent.note(str(number), number * 100)
    assert not recent.holds("0", 60_000)
    assert recent.holds(str(RECENT_MAX), RECENT_MAX * 100 + 59_999)
    assert len(recent._when_ms) < RECENT_MAX
    never = Recent(0)
    never.note("a", 5)
    assert not never.holds("a", 5)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("account", "12"),
        ("region", ""),
        ("public_url", "q.example.com"),
        ("name_reuse_seconds", -1),
        ("body_bytes_max", 1),
    ],
)
def test_wrong_settings_are_named(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=setting):
        SqsConfig(**{setting: value})  # type: ignore[arg-type]
