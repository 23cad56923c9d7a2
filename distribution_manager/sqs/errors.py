"""What SQS says when it refuses: one table of its errors, and the exception that carries one to the client.

An error has three names: the shape (JSON ``__type``, what modelled exceptions in SDKs are called), the query code (XML
``Code`` and the ``x-amzn-query-error`` header, what clients older than the JSON protocol match on), and a status.
Sources: the ``aws.protocols#awsQueryError`` traits of AWS's Smithy model of SQS, and the "Errors" sections of
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/ (per action, and CommonErrors.html).
"""

from __future__ import annotations

from typing import NamedTuple

from shadow_nodes.protocol.errors import RejectedError


class ErrorKind(NamedTuple):
    """``sender``: the client is to blame; repeating the same request will not help."""

    shape: str
    query_code: str
    status: int = 400
    modelled: bool = True

    @property
    def sender(self) -> bool:
        return self.status < 500

    @property
    def json_type(self) -> str:
        namespace = "com.amazonaws.sqs" if self.modelled else "com.amazon.coral.service"
        return f"{namespace}#{self.shape}"


class SqsError(RejectedError):
    """Becomes the error response. ``str(error)`` is the message that the client sees."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


_PREFIX = "AWS.SimpleQueueService."

# --- in the service model ------------------------------------------------------------------------------------------

BATCH_IDS_NOT_DISTINCT = ErrorKind("BatchEntryIdsNotDistinct", _PREFIX + "BatchEntryIdsNotDistinct")
BATCH_TOO_LONG = ErrorKind("BatchRequestTooLong", _PREFIX + "BatchRequestTooLong")
EMPTY_BATCH = ErrorKind("EmptyBatchRequest", _PREFIX + "EmptyBatchRequest")
INVALID_ADDRESS = ErrorKind("InvalidAddress", "InvalidAddress", 404)
INVALID_ATTRIBUTE_NAME = ErrorKind("InvalidAttributeName", "InvalidAttributeName")
INVALID_ATTRIBUTE_VALUE = ErrorKind("InvalidAttributeValue", "InvalidAttributeValue")
INVALID_BATCH_ENTRY_ID = ErrorKind("InvalidBatchEntryId", _PREFIX + "InvalidBatchEntryId")
INVALID_MESSAGE_CONTENTS = ErrorKind("InvalidMessageContents", "InvalidMessageContents")
INVALID_SECURITY = ErrorKind("InvalidSecurity", "InvalidSecurity", 403)
MESSAGE_NOT_IN_FLIGHT = ErrorKind("MessageNotInflight", _PREFIX + "MessageNotInflight")
OVER_LIMIT = ErrorKind("OverLimit", "OverLimit", 403)
PURGE_IN_PROGRESS = ErrorKind("PurgeQueueInProgress", _PREFIX + "PurgeQueueInProgress", 403)
QUEUE_DELETED_RECENTLY = ErrorKind("QueueDeletedRecently", _PREFIX + "QueueDeletedRecently")
QUEUE_DOES_NOT_EXIST = ErrorKind("QueueDoesNotExist", _PREFIX + "NonExistentQueue")
QUEUE_NAME_EXISTS = ErrorKind("QueueNameExists", "QueueAlreadyExists")
RECEIPT_HANDLE_INVALID = ErrorKind("ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", 404)
REQUEST_THROTTLED = ErrorKind("RequestThrottled", "RequestThrottled", 403)
RESOURCE_NOT_FOUND = ErrorKind("ResourceNotFoundException", "ResourceNotFoundException", 404)
TOO_MANY_BATCH_ENTRIES = ErrorKind("TooManyEntriesInBatchRequest", _PREFIX + "TooManyEntriesInBatchRequest")
UNSUPPORTED_OPERATION = ErrorKind("UnsupportedOperation", _PREFIX + "UnsupportedOperation")

# --- common to all AWS services ------------------------------------------------------------------------------------

ACCESS_DENIED = ErrorKind("AccessDeniedException", "AccessDenied", 403, modelled=False)
BODY_TOO_LARGE = ErrorKind("RequestEntityTooLarge", "RequestEntityTooLarge", 413, modelled=False)
HEAD_TOO_LARGE = ErrorKind("RequestHeaderFieldsTooLarge", "RequestHeaderFieldsTooLarge", 431, modelled=False)
INCOMPLETE_SIGNATURE = ErrorKind("IncompleteSignatureException", "IncompleteSignature", 400, modelled=False)
INTERNAL_FAILURE = ErrorKind("InternalFailure", "InternalFailure", 500, modelled=False)
INVALID_ACTION = ErrorKind("UnknownOperationException", "InvalidAction", 400, modelled=False)
INVALID_HTTP_REQUEST = ErrorKind("InvalidHttpRequest", "InvalidHttpRequest", 400, modelled=False)
INVALID_PARAMETER_VALUE = ErrorKind("InvalidParameterValueException", "InvalidParameterValue", 400, modelled=False)
MALFORMED_QUERY = ErrorKind("MalformedQueryString", "MalformedQueryString", 400, modelled=False)
METHOD_NOT_ALLOWED = ErrorKind("InvalidHttpRequest", "InvalidHttpRequest", 405, modelled=False)
MISSING_ACTION = ErrorKind("MissingActionException", "MissingAction", 400, modelled=False)
MISSING_AUTHENTICATION = ErrorKind(
    "MissingAuthenticationTokenException", "MissingAuthenticationToken", 403, modelled=False
)
MISSING_PARAMETER = ErrorKind("MissingRequiredParameterException", "MissingParameter", 400, modelled=False)
NOT_IMPLEMENTED = ErrorKind("NotImplementedException", "NotImplemented", 501, modelled=False)
REQUEST_EXPIRED = ErrorKind("RequestExpired", "RequestExpired", 400, modelled=False)
REQUEST_TIMEOUT = ErrorKind("RequestTimeoutException", "RequestTimeout", 408, modelled=False)
NO_SUCH_VERSION = ErrorKind("NoSuchVersionException", "NoSuchVersion", 400, modelled=False)
SERIALIZATION = ErrorKind("SerializationException", "MalformedInput", 400, modelled=False)
SERVICE_UNAVAILABLE = ErrorKind("ServiceUnavailable", "ServiceUnavailable", 503, modelled=False)
SIGNATURE_DOES_NOT_MATCH = ErrorKind("InvalidSignatureException", "SignatureDoesNotMatch", 403, modelled=False)
UNKNOWN_ACCESS_KEY = ErrorKind("UnrecognizedClientException", "InvalidClientTokenId", 403, modelled=False)


def missing_parameter(name: str) -> SqsError:
    return SqsError(MISSING_PARAMETER, f"The request must contain the parameter {name}.")


def invalid_parameter(message: str) -> SqsError:
    return SqsError(INVALID_PARAMETER_VALUE, message)


def invalid_value(value: object, parameter: str, reason: str) -> SqsError:
    """SQS's usual sentence about one parameter."""
    return SqsError(INVALID_PARAMETER_VALUE, f"Value {value} for parameter {parameter} is invalid. Reason: {reason}")


def queue_does_not_exist(*, query: bool = False) -> SqsError:
    """The two protocols word it differently; old clients compare the text."""
    return SqsError(
        QUEUE_DOES_NOT_EXIST,
        "The specified queue does not exist for this wsdl version." if query else "The specified queue does not exist.",
    )
