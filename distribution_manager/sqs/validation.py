"""SQS's rules about messages: contents, attributes, ids, sizes. Cheap checks first, regular expressions if they fail.

Rules: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html and
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from distribution_manager.sqs import errors
from distribution_manager.sqs.digests import Attribute
from distribution_manager.sqs.errors import SqsError, invalid_parameter, invalid_value
from distribution_manager.sqs.models import AttributeValue, AttributeValues
from shadow_nodes.protocol.limits import BATCH_MESSAGES_MAX

ATTRIBUTES_MAX = 10
ATTRIBUTE_NAME_CHARACTERS_MAX = 256
DATA_TYPE_CHARACTERS_MAX = 256
DELAY_SECONDS_MAX = 900
VISIBILITY_SECONDS_MAX = 43_200
WAIT_SECONDS_MAX = 20
RECEIVE_MAX = 10
FIFO_ID_CHARACTERS_MAX = 128
QUEUE_NAME_CHARACTERS_MAX = 80
BATCH_ID_CHARACTERS_MAX = 80
TRACE_HEADER = "AWSTraceHeader"

find_invalid_character = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]").search
"""What XML 1.0 has no way to say, and SQS therefore does not take."""

_ATTRIBUTE_NAME = re.compile(r"[A-Za-z0-9_.-]+").fullmatch
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII).fullmatch


def utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def is_name(text: str, characters_max: int) -> bool:
    """ASCII letters, digits, hyphens and underscores only."""
    if not 0 < len(text) <= characters_max or not text.isascii():
        return False
    return text.isalnum() or (rest := text.replace("-", "").replace("_", "")) == "" or rest.isalnum()


def is_queue_name(name: str) -> bool:
    """The .fifo suffix counts towards the 80 characters."""
    return len(name) <= QUEUE_NAME_CHARACTERS_MAX and is_name(name.removesuffix(".fifo"), QUEUE_NAME_CHARACTERS_MAX)


def check_body(body: str) -> None:
    """Printable text needs no search: none of the characters that SQS refuses is printable."""
    if not body.isprintable() and find_invalid_character(body):
        raise SqsError(
            errors.INVALID_MESSAGE_CONTENTS,
            "Invalid characters found. Valid unicode characters are "
            "#x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF",
        )


def check_range(value: int, low: int, high: int, parameter: str, reason: str) -> None:
    if not low <= value <= high:
        raise invalid_value(value, parameter, reason)


def check_visibility(seconds: int) -> None:
    check_range(
        seconds,
        0,
        VISIBILITY_SECONDS_MAX,
        "VisibilityTimeout",
        "VisibilityTimeout must be an integer between 0 and 43200.",
    )


def check_fifo_id(value: str, parameter: str) -> None:
    """MessageGroupId, MessageDeduplicationId, ReceiveRequestAttemptId: printable ASCII without the space."""
    if not (0 < len(value) <= FIFO_ID_CHARACTERS_MAX and value.isascii() and value.isprintable() and " " not in value):
        raise invalid_value(
            value,
            parameter,
            f"{parameter} can only include alphanumeric and punctuation characters. 1 to 128 in length.",
        )


# --- message attributes --------------------------------------------------------------------------------------------


def user_attributes(given: AttributeValues) -> list[Attribute]:
    """Sorted by name."""
    if len(given) > ATTRIBUTES_MAX:
        raise invalid_parameter(
            f"Number of message attributes [{len(given)}] exceeds the allowed maximum [{ATTRIBUTES_MAX}]."
        )
    for name in given:
        _check_attribute_name(name)
    return [_attribute(name, given[name], "message (user) attribute") for name in sorted(given)]


def attributes_size(given: AttributeValues) -> int:
    """The attributes' share of a message's size: names, types and values."""
    size = 0
    for name, value in given.items():
        size += utf8_length(name) + utf8_length(value.data_type or "") + utf8_length(value.string_value or "")
        size += len(value.binary_value or b"")
    return size


def trace_header(given: AttributeValues) -> str:
    """The one system attribute that a sender may give. Its size does not count."""
    for name in given:
        if name != TRACE_HEADER:
            raise invalid_parameter(f"Message system attribute name '{name}' is invalid.")
    if TRACE_HEADER not in given:
        return ""
    value = _attribute(TRACE_HEADER, given[TRACE_HEADER], "message system attribute")
    if value[1] != "String" or isinstance(value[2], bytes):
        raise invalid_parameter(
            f"The message system attribute '{TRACE_HEADER}' is reserved for AWS X-Ray trace header. "
            "The type must be 'String'."
        )
    return value[2]


def _check_attribute_name(name: str) -> None:
    if not name:
        raise invalid_parameter("The request must contain non-empty message (user) attribute names.")
    if len(name) > ATTRIBUTE_NAME_CHARACTERS_MAX:
        raise invalid_parameter(
            f"Message (user) attribute name must be shorter than {ATTRIBUTE_NAME_CHARACTERS_MAX} bytes."
        )
    if not _ATTRIBUTE_NAME(name):
        raise invalid_parameter(
            "Invalid non-alphanumeric character was found in the message attribute name. "
            "Can only include alphanumeric characters, hyphens, underscores, or dots."
        )
    lowered = name.lower()
    if lowered.startswith(("aws.", "amazon.")):
        raise invalid_parameter(
            "You can't use message attribute names beginning with 'AWS.' or 'Amazon.'. "
            "These strings are reserved for internal use."
        )
    if name.startswith("."):
        raise invalid_parameter("Message (user) attribute name must not begin with character '.'.")
    if name.endswith("."):
        raise invalid_parameter("Message (user) attribute name must not end with character '.'.")
    if ".." in name:
        raise invalid_parameter("Message (user) attribute name must not have successive '.' characters.")


def _attribute(name: str, value: AttributeValue, kind: str) -> Attribute:
    data_type = value.data_type
    if not data_type:
        raise invalid_parameter(f"The {kind} '{name}' must contain a non-empty message attribute type.")
    if value.string_list_values or value.binary_list_values:
        raise SqsError(
            errors.UNSUPPORTED_OPERATION, "Message attribute list values in SendMessage operation are not supported."
        )
    base, dot, custom = data_type.partition(".")
    if base not in ("String", "Number", "Binary") or find_invalid_character(data_type) or (dot and not custom):
        raise invalid_parameter(
            f"The type of {kind} '{name}' is invalid. "
            "You must use only the following supported type prefixes: Binary, Number, String."
        )
    if len(data_type) > DATA_TYPE_CHARACTERS_MAX:
        raise invalid_parameter(f"{kind.capitalize()} type must be shorter than {DATA_TYPE_CHARACTERS_MAX} bytes.")
    return name, data_type, _binary(name, value, kind) if base == "Binary" else _text(name, base, value, kind)


def _binary(name: str, value: AttributeValue, kind: str) -> bytes:
    if value.string_value is not None:
        raise invalid_parameter(f"{kind.capitalize()} '{name}' with type 'Binary' must use field 'Binary'.")
    if not value.binary_value:
        raise _empty(name, value, kind)
    return value.binary_value


def _text(name: str, base: str, value: AttributeValue, kind: str) -> str:
    if value.binary_value is not None:
        raise invalid_parameter(f"{kind.capitalize()} '{name}' with type '{base}' must use field 'String'.")
    text = value.string_value
    if not text:
        raise _empty(name, value, kind)
    check_body(text)
    if base == "Number" and not _NUMBER(text):
        raise invalid_parameter(f"Can't cast the value of {kind} '{name}' to a number.")
    return text


def _empty(name: str, value: AttributeValue, kind: str) -> SqsError:
    return invalid_parameter(
        f"{kind.capitalize()} '{name}' must contain a non-empty value of type '{value.data_type}'."
    )


# --- batches -------------------------------------------------------------------------------------------------------


class Entry(Protocol):
    @property
    def id(self) -> str | None: ...


def check_batch(entries: Sequence[Entry] | None, kind: str) -> None:
    """What a whole batch call is refused for. ``kind``: the entries' name, e.g. SendMessageBatchRequestEntry."""
    if not entries:
        raise SqsError(errors.EMPTY_BATCH, f"There should be at least one {kind} in the request.")
    if len(entries) > BATCH_MESSAGES_MAX:
        raise SqsError(
            errors.TOO_MANY_BATCH_ENTRIES,
            f"Maximum number of entries per request are {BATCH_MESSAGES_MAX}. You have sent {len(entries)}.",
        )
    seen = set()
    for number, entry in enumerate(entries, 1):
        if entry.id is None:
            raise errors.missing_parameter(f"{kind}.{number}.Id")
        if not is_name(entry.id, BATCH_ID_CHARACTERS_MAX):
            raise SqsError(
                errors.INVALID_BATCH_ENTRY_ID,
                "A batch entry id can only contain alphanumeric characters, hyphens and underscores. "
                "It can be at most 80 letters long.",
            )
        if entry.id in seen:
            raise SqsError(errors.BATCH_IDS_NOT_DISTINCT, f"Id {entry.id} repeated.")
        seen.add(entry.id)
