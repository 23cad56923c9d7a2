"""HTTP requests in, Backend calls, SQS's answers out: in either protocol, chosen by content type.

Whatever a client sends is answered as SQS would; only a bug here answers 500, and that is logged with the request's id.
"""

from __future__ import annotations

import itertools
import logging
import time
import uuid
from collections.abc import Callable
from urllib.parse import unquote

from distribution_manager.sqs import errors, json_codec, query_codec
from distribution_manager.sqs.backend import Backend, QueueGone, Unavailable
from distribution_manager.sqs.body import decompressed
from distribution_manager.sqs.config import Gate, OpenGate, SqsConfig
from distribution_manager.sqs.errors import ErrorKind, SqsError, queue_does_not_exist
from distribution_manager.sqs.http.messages import Problem, Request, Response
from distribution_manager.sqs.http.server import ConnectionBounds, HttpServer
from distribution_manager.sqs.service import Call, Service

Observe = Callable[[str, str, float], None]
"""(operation or "", error code or "", seconds) of every request, for metrics."""

_PROBLEMS = {
    400: errors.INVALID_HTTP_REQUEST,
    408: errors.REQUEST_TIMEOUT,
    413: errors.BODY_TOO_LARGE,
    431: errors.HEAD_TOO_LARGE,
    501: errors.NOT_IMPLEMENTED,
}
_PLAIN_TEXT = "text/plain; charset=utf-8"

_log = logging.getLogger(__name__)


def make_endpoint(
    backend: Backend,
    config: SqsConfig,
    gate: Gate | None = None,
    *,
    now_ms: Callable[[], int] | None = None,
    observe: Observe | None = None,
) -> Endpoint:
    """``gate``: who may do what; None lets everyone. ``now_ms``: the wall clock, for the limits that last a minute."""
    service = Service(backend, config, gate or OpenGate(config.account), now_ms)
    return Endpoint(service, observe)


def make_server(endpoint: Endpoint, bounds: ConnectionBounds | None = None) -> HttpServer:
    """Needs a running loop."""
    return HttpServer(endpoint, bounds or ConnectionBounds())


class Endpoint:
    """An ``http.server.Application``."""

    def __init__(self, service: Service, observe: Observe | None) -> None:
        self.body_bytes_max = service.config.body_bytes_max
        self.body_seconds_max = service.config.body_seconds_max
        self._service = service
        self._observe = observe
        self._request_prefix = str(uuid.uuid4())[:24]
        self._requests = itertools.count(1)

    async def handle(self, request: Request) -> Response:
        answer = self._answer_json if _is_json(request) else self._answer_query
        request_id = self._request_id()
        if self._observe is None:
            return (await answer(request, request_id))[0]
        start = time.perf_counter()
        response, operation, code = await answer(request, request_id)
        self._observe(operation, code, time.perf_counter() - start)
        return response

    def refuse(self, request: Request) -> Response | None:
        """Strangers get an answer before their body is taken in."""
        try:
            self._service.gate.admit(request)
        except Exception as error:
            return self._refused(request, error)
        return None

    def complain(self, request: Request | None, problem: Problem) -> Response:
        """In plain text where it is not known which protocol the client speaks."""
        kind = _PROBLEMS[problem.status]
        if request is not None:
            return self._refused(request, SqsError(kind, problem.reason))
        self._count("", kind)
        return Response(f"{problem.reason}\n".encode(), {"Content-Type": _PLAIN_TEXT}, problem.status)

    def _refused(self, request: Request, error: Exception) -> Response:
        request_id = self._request_id()
        query = not _is_json(request)
        refusal = self._refusal(error, request_id, query=query)
        self._count("", refusal.kind)
        return _query_error(refusal, request_id) if query else _json_error(refusal, request_id)

    def _count(self, operation: str, kind: ErrorKind) -> None:
        if self._observe is not None:
            self._observe(operation, kind.query_code, 0.0)

    def _request_id(self) -> str:
        return f"{self._request_prefix}{next(self._requests):012x}"

    async def _answer_json(self, request: Request, request_id: str) -> tuple[Response, str, str]:
        """(response, operation's name, error code), for both protocols."""
        name = ""
        try:
            caller = self._service.gate.authorize(request, request.body)
            body = decompressed(request, self.body_bytes_max)
            operation = json_codec.decode_operation(request.headers.get("x-amz-target", ""))
            name = operation.name
            call = Call(self._service, request, caller, name, query=False)
            result = await operation.run(call, json_codec.decode_request(operation, body))
            payload = b"{}" if result is None else json_codec.encode(result)
        except Exception as error:
            refusal = self._refusal(error, request_id, query=False)
            return _json_error(refusal, request_id), name, refusal.kind.query_code
        headers = {"Content-Type": json_codec.CONTENT_TYPE, "x-amzn-RequestId": request_id}
        return Response(payload, headers), name, ""

    async def _answer_query(self, request: Request, request_id: str) -> tuple[Response, str, str]:
        name = ""
        try:
            if request.method not in ("GET", "POST"):
                raise SqsError(errors.METHOD_NOT_ALLOWED, f"The HTTP method {request.method} is not supported.")
            caller = self._service.gate.authorize(request, request.body)
            form = query_codec.parse_form(request.query, decompressed(request, self.body_bytes_max))
            operation = query_codec.decode_operation(form)
            name = operation.name
            call = Call(self._service, request, caller, name, query=True)
            result = await operation.run(call, query_codec.decode_request(operation, form, unquote(request.path)))
            payload = query_codec.encode_result(operation, result, request_id)
        except Exception as error:
            refusal = self._refusal(error, request_id, query=True)
            return _query_error(refusal, request_id), name, refusal.kind.query_code
        headers = {"Content-Type": query_codec.CONTENT_TYPE, "x-amzn-RequestId": request_id}
        return Response(payload, headers), name, ""

    def _refusal(self, error: Exception, request_id: str, *, query: bool) -> SqsError:
        """What the client is told."""
        if isinstance(error, SqsError):
            return error
        if isinstance(error, QueueGone):
            return queue_does_not_exist(query=query)
        if isinstance(error, Unavailable):
            return SqsError(
                errors.SERVICE_UNAVAILABLE, str(error) or "No answer could be had in time; repeat the request."
            )
        _log.error("request %s failed", request_id, exc_info=error)
        return SqsError(errors.INTERNAL_FAILURE, "The request failed because of an internal error.")


def _is_json(request: Request) -> bool:
    headers = request.headers
    return request.method == "POST" and (
        "x-amz-target" in headers or headers.get("content-type", "").startswith("application/x-amz-json")
    )


def _json_error(refusal: SqsError, request_id: str) -> Response:
    payload, more = json_codec.encode_error(refusal)
    headers = {"Content-Type": json_codec.CONTENT_TYPE, "x-amzn-RequestId": request_id, **more}
    return Response(payload, headers, refusal.kind.status)


def _query_error(refusal: SqsError, request_id: str) -> Response:
    headers = {"Content-Type": query_codec.CONTENT_TYPE, "x-amzn-RequestId": request_id}
    return Response(query_codec.encode_error(refusal, request_id), headers, refusal.kind.status)
