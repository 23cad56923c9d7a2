"""AWS JSON 1.0: one object per body, the operation in the X-Amz-Target header.

https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html; ``x-amzn-query-error`` is from
https://smithy.io/2.0/aws/protocols/aws-query-protocol.html (awsQueryCompatible), sent always:
older clients match on it.
"""

from __future__ import annotations

import msgspec

from distribution_manager.sqs import errors, models
from distribution_manager.sqs.errors import SqsError
from distribution_manager.sqs.operations import OPERATIONS, Operation

CONTENT_TYPE = "application/x-amz-json-1.0"
TARGETS = {f"AmazonSQS.{name}": operation for name, operation in OPERATIONS.items()}

encode = msgspec.json.Encoder().encode


def decode_operation(target: str) -> Operation:
    """Raises SqsError."""
    operation = TARGETS.get(target)
    if operation is None:
        raise SqsError(errors.INVALID_ACTION, "X-Amz-Target: must be AmazonSQS. and the name of an SQS operation.")
    return operation


def decode_request(operation: Operation, body: bytes) -> models.Request:
    """Raises SqsError. An empty body counts as an empty object."""
    try:
        return operation.decode(body or b"{}")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SqsError(errors.SERIALIZATION, f"The body is not a {operation.name} request: {error}") from error


def encode_error(error: SqsError) -> tuple[bytes, dict[str, str]]:
    """(body, headers). What a client sent that is no UTF-8 (the message may quote it) becomes ``?``."""
    kind = error.kind
    message = str(error).encode("utf-8", "replace").decode()
    body = encode({"__type": kind.json_type, "message": message})
    return body, {"x-amzn-query-error": f"{kind.query_code};{'Sender' if kind.sender else 'Receiver'}"}
