"""The Query protocol, version 2012-11-05: forms with dotted names in, XML out.

``SendMessageBatchRequestEntry.2.MessageAttribute.1.Value.StringValue=x`` becomes a tree, the tree becomes what the JSON
protocol would have sent, and that converts to the same structs. Lists and maps are all flattened in SQS's model,
under the names below. https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-making-api-requests-xml.html
"""

from __future__ import annotations

import base64
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import msgspec

from distribution_manager.sqs import errors, models
from distribution_manager.sqs.errors import SqsError, invalid_parameter
from distribution_manager.sqs.operations import OPERATIONS, WITHOUT_RESULT, Operation
from distribution_manager.sqs.validation import find_invalid_character

CONTENT_TYPE = "text/xml"
VERSION = "2012-11-05"
NAMESPACE = f"http://queue.amazonaws.com/doc/{VERSION}/"
FIELDS_MAX = 2_000
"""Of a form; a batch of ten messages with ten attributes each has about 400."""
DEPTH_MAX = 6
"""Dots in a name: SendMessageBatchRequestEntry.1.MessageAttribute.1.Value.StringListValue.1"""

_LISTS = {
    "AWSAccountId": "AWSAccountIds",
    "ActionName": "Actions",
    "AttributeName": "AttributeNames",
    "BinaryListValue": "BinaryListValues",
    "MessageAttributeName": "MessageAttributeNames",
    "MessageSystemAttributeName": "MessageSystemAttributeNames",
    "StringListValue": "StringListValues",
    "TagKey": "TagKeys",
}
_ENTRIES = frozenset(
    {"ChangeMessageVisibilityBatchRequestEntry", "DeleteMessageBatchRequestEntry", "SendMessageBatchRequestEntry"}
)
_MAPS = {
    "Attribute": ("Attributes", "Name", "Value"),
    "MessageAttribute": ("MessageAttributes", "Name", "Value"),
    "MessageSystemAttribute": ("MessageSystemAttributes", "Name", "Value"),
    "Tag": ("Tags", "Key", "Value"),
}
_NUMBERS = frozenset(
    {
        "DelaySeconds",
        "MaxNumberOfMessages",
        "MaxNumberOfMessagesPerSecond",
        "MaxResults",
        "VisibilityTimeout",
        "WaitTimeSeconds",
    }
)

Tree: TypeAlias = dict[str, "str | Tree"]


# --- requests ------------------------------------------------------------------------------------------------------


def parse_form(query: str, body: bytes) -> dict[str, str]:
    """The parameters of the URL and of the body; the body's win. Raises SqsError."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX) if query else []
        if body:
            pairs += parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)
    except ValueError as error:
        raise SqsError(errors.MALFORMED_QUERY, f"The form cannot be read: {error}") from error
    return dict(pairs)


def decode_operation(form: dict[str, str]) -> Operation:
    """Raises SqsError."""
    action = form.get("Action")
    if not action:
        raise SqsError(errors.MISSING_ACTION, "The request must contain the parameter Action.")
    operation = OPERATIONS.get(action)
    if operation is None:
        raise SqsError(errors.INVALID_ACTION, f"The action {action} is not valid for this endpoint.")
    version = form.get("Version", VERSION)
    if version != VERSION:  # older ones had other names for parameters, which would be ignored
        raise SqsError(
            errors.NO_SUCH_VERSION, f"The requested version ({version}) of SQS is not supported: {VERSION} is."
        )
    return operation


def decode_request(operation: Operation, form: dict[str, str], path: str) -> models.Request:
    """``path``: the URL's, which names the queue where the form does not. Raises SqsError."""
    members = _members(_tree(form))
    if "QueueUrl" not in members and path.count("/") > 1:
        members["QueueUrl"] = path.rstrip("/")
    try:
        return msgspec.convert(members, operation.request)
    except (msgspec.MsgspecError, ValueError) as error:
        raise SqsError(errors.MALFORMED_QUERY, f"The form is not a {operation.name} request: {error}") from error


def _tree(form: dict[str, str]) -> Tree:
    root: Tree = {}
    for name, value in form.items():
        *parents, last = name.split(".", DEPTH_MAX)
        node = root
        for parent in parents:
            child = node.setdefault(parent, {})
            if isinstance(child, str):
                raise SqsError(errors.MALFORMED_QUERY, f"The parameter {name} contradicts another.")
            node = child
        if isinstance(node.get(last), dict):
            raise SqsError(errors.MALFORMED_QUERY, f"The parameter {name} contradicts another.")
        node[last] = value
    return root


def _members(tree: Tree) -> dict[str, Any]:
    """The tree of one struct as the JSON protocol would have it."""
    members: dict[str, Any] = {}
    for name, node in tree.items():
        if name in _LISTS:
            members[_LISTS[name]] = [_scalar(name, item) for item in _items(name, node)]
        elif name in _MAPS:
            member, key, value = _MAPS[name]
            members[member] = _map(name, _items(name, node), key, value)
        elif name in _ENTRIES:
            members["Entries"] = [_members(_struct(name, item)) for item in _items(name, node)]
        elif name in _NUMBERS:
            members[name] = _number(name, node)
        else:
            members[name] = node
    return members


def _items(name: str, node: str | Tree) -> list[str | Tree]:
    """``name.1``, ``name.2``, … in order of their numbers; a single one may go without a number."""
    if isinstance(node, str):
        return [node] if node else []  # botocore sends an empty list as ``name=``
    if not all(key.isascii() and key.isdigit() and len(key) < 6 for key in node):
        if any(key.isdigit() for key in node):
            raise SqsError(errors.MALFORMED_QUERY, f"The parameters {name}.n must be numbered.")
        return [node] if node else []  # botocore sends an empty list as ``name=``
    return [node[key] for key in sorted(node, key=int)]


def _map(name: str, items: list[str | Tree], key: str, value: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for item in items:
        pair = _struct(name, item)
        held = pair.get(value, "")
        result[_scalar(name, pair.get(key, ""))] = _members(held) if isinstance(held, dict) else held
    return result


def _struct(name: str, node: str | Tree) -> Tree:
    if isinstance(node, str):
        raise SqsError(errors.MALFORMED_QUERY, f"The parameter {name} must have members.")
    return node


def _scalar(name: str, node: str | Tree) -> str:
    if not isinstance(node, str):
        raise SqsError(errors.MALFORMED_QUERY, f"The parameter {name} must be a single value.")
    return node


def _number(name: str, node: str | Tree) -> int | None:
    text = _scalar(name, node)
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise invalid_parameter(f"Value {text} for parameter {name} is invalid. Reason: Must be an integer.")
    return int(text)


# --- responses -----------------------------------------------------------------------------------------------------

_ELEMENTS = {
    "Failed": "BatchResultErrorEntry",
    "Messages": "Message",
    "QueueUrls": "QueueUrl",
    "queueUrls": "QueueUrl",
}
_MAP_ELEMENTS = {member: (element, key, value) for element, (member, key, value) in _MAPS.items()}


def encode_result(operation: Operation, result: models.Result | None, request_id: str) -> bytes:
    name = operation.name
    parts = [f'<?xml version="1.0"?><{name}Response xmlns="{NAMESPACE}">']
    if name not in WITHOUT_RESULT:
        parts.append(f"<{name}Result>")
        if result is not None:
            _append_struct(parts, result, name)
        parts.append(f"</{name}Result>")
    parts.append(f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{name}Response>")
    return "".join(parts).encode()


def encode_error(error: SqsError, request_id: str) -> bytes:
    fault = "Sender" if error.kind.sender else "Receiver"
    return (
        f'<?xml version="1.0"?><ErrorResponse xmlns="{NAMESPACE}"><Error><Type>{fault}</Type>'
        f"<Code>{error.kind.query_code}</Code><Message>{_escape(str(error))}</Message><Detail/></Error>"
        f"<RequestId>{request_id}</RequestId></ErrorResponse>"
    ).encode()


def _append_struct(parts: list[str], struct: msgspec.Struct, operation: str) -> None:
    for field, name in zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True):
        value = getattr(struct, field)
        if isinstance(value, list):
            element = _ELEMENTS.get(name) or f"{operation}ResultEntry"
            for item in value:
                _append(parts, element, item, operation)
        elif isinstance(value, dict):
            element, key_name, value_name = _MAP_ELEMENTS[name]
            for key, held in value.items():
                parts.append(f"<{element}><{key_name}>{_escape(key)}</{key_name}>")
                _append(parts, value_name, held, operation)
                parts.append(f"</{element}>")
        elif value is not None:
            _append(parts, name, value, operation)


def _append(parts: list[str], name: str, value: object, operation: str) -> None:
    parts.append(f"<{name}>")
    if isinstance(value, msgspec.Struct):
        _append_struct(parts, value, operation)
    elif isinstance(value, bytes):
        parts.append(base64.b64encode(value).decode())
    elif isinstance(value, bool):
        parts.append("true" if value else "false")
    else:
        parts.append(_escape(str(value)))
    parts.append(f"</{name}>")


def _escape(text: str) -> str:
    """What XML cannot say (an error message may quote it) becomes U+FFFD; a bare CR would be read as LF."""
    if not text.isprintable() and find_invalid_character(text):
        text = "".join("\ufffd" if find_invalid_character(character) else character for character in text)
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    return escaped.replace("\r", "&#xD;")
