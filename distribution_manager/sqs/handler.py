"""HTTP requests in, Backend calls, SQS's answers out: in either protocol, chosen by content type.

``make_handler`` gives a function that works on a bare ``web.Server`` and as an application's route. Whatever a client
sends is answered as SQS would; only a bug here answers 500, and that is logged with the request's id.
"""

from __future__ import annotations

import itertools
import logging
import time
import uuid
from collections.abc import Awaitable, Callable

from aiohttp import web

from distribution_manager.sqs import errors, json_codec, query_codec
from distribution_manager.sqs.backend import Backend, QueueGone, Unavailable, Unsupported
from distribution_manager.sqs.body import decompressed, read_body
from distribution_manager.sqs.config import Caller, Gate, OpenGate, SqsConfig
from distribution_manager.sqs.connections import ClientServer, ConnectionBounds
from distribution_manager.sqs.errors import SqsError, queue_does_not_exist
from distribution_manager.sqs.service import Call, Service

Handler = Callable[[web.BaseRequest], Awaitable[web.Response]]
Observe = Callable[[str, str, float], None]
"""(operation or "", error code or "", seconds) of every request, for metrics."""

_log = logging.getLogger(__name__)


def make_handler(
    backend: Backend,
    config: SqsConfig,
    gate: Gate | None = None,
    *,
    now_ms: Callable[[], int] | None = None,
    observe: Observe | None = None,
) -> Handler:
    """``gate``: who may do what; None lets everyone. ``now_ms``: the wall clock, for the limits that last a minute."""
    service = Service(backend, config, gate or OpenGate(config.account), now_ms)
    return _Endpoint(service, observe).handle


def make_server(handler: Handler, bounds: ConnectionBounds | None = None) -> ClientServer:
    """A bare HTTP server: some 10 µs a request cheaper than a route. Needs a running loop."""
    return ClientServer(handler, bounds or ConnectionBounds())


class _Endpoint:
    def __init__(self, service: Service, observe: Observe | None) -> None:
        self._service = service
        self._observe = observe
        self._body_bytes_max = service.config.body_bytes_max
        self._body_seconds_max = service.config.body_seconds_max
        self._request_prefix = str(uuid.uuid4())[:24]
        self._requests = itertools.count(1)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        request_id = f"{self._request_prefix}{next(self._requests):012x}"
        headers = request.headers
        target = headers.get("X-Amz-Target")
        answer = self._answer_query
        if request.method == "POST" and (
            target is not None or headers.get("Content-Type", "").startswith("application/x-amz-json")
        ):
            answer = self._answer_json
        if self._observe is None:
            return (await answer(request, target, request_id))[0]
        start = time.perf_counter()
        response, operation, code = await answer(request, target, request_id)
        self._observe(operation, code, time.perf_counter() - start)
        return response

    async def _answer_json(
        self, request: web.BaseRequest, target: str | None, request_id: str
    ) -> tuple[web.Response, str, str]:
        """(response, operation's name, error code), for both protocols."""
        name = ""
        headers = {"Content-Type": json_codec.CONTENT_TYPE, "x-amzn-RequestId": request_id}
        try:
            body, caller = await self._receive(request)
            body = decompressed(request, body, self._body_bytes_max)
            operation = json_codec.decode_operation(target or "")
            name = operation.name
            call = Call(self._service, request, caller, name, query=False)
            result = await operation.run(call, json_codec.decode_request(operation, body))
            payload = b"{}" if result is None else json_codec.encode(result)
        except Exception as error:
            refusal = self._refusal(error, request_id, query=False)
            payload, more = json_codec.encode_error(refusal)
            response = web.Response(body=payload, status=refusal.kind.status, headers=headers | more)
            return response, name, refusal.kind.query_code
        return web.Response(body=payload, headers=headers), name, ""

    async def _answer_query(
        self, request: web.BaseRequest, target: str | None, request_id: str
    ) -> tuple[web.Response, str, str]:
        name = ""
        headers = {"Content-Type": query_codec.CONTENT_TYPE, "x-amzn-RequestId": request_id}
        try:
            if request.method not in ("GET", "POST"):
                raise SqsError(errors.METHOD_NOT_ALLOWED, f"The HTTP method {request.method} is not supported.")
            body, caller = await self._receive(request)
            body = decompressed(request, body, self._body_bytes_max)
            form = query_codec.parse_form(request.rel_url.raw_query_string, body)
            operation = query_codec.decode_operation(form)
            name = operation.name
            call = Call(self._service, request, caller, name, query=True)
            result = await operation.run(call, query_codec.decode_request(operation, form, request.path))
            payload = query_codec.encode_result(operation, result, request_id)
        except Exception as error:
            refusal = self._refusal(error, request_id, query=True)
            payload = query_codec.encode_error(refusal, request_id)
            return (
                web.Response(body=payload, status=refusal.kind.status, headers=headers),
                name,
                refusal.kind.query_code,
            )
        return web.Response(body=payload, headers=headers), name, ""

    async def _receive(self, request: web.BaseRequest) -> tuple[bytes, Caller]:
        """The body as it was sent, and who sent it. Raises SqsError; strangers get it before their body is taken in."""
        gate = self._service.gate
        if not request.content.is_eof():
            gate.admit(request)
        body = await read_body(request, self._body_bytes_max, self._body_seconds_max)
        return body, gate.authorize(request, body)

    def _refusal(self, error: Exception, request_id: str, *, query: bool) -> SqsError:
        """What the client is told."""
        if isinstance(error, SqsError):
            return error
        if isinstance(error, QueueGone):
            return queue_does_not_exist(query=query)
        if isinstance(error, Unsupported):
            return SqsError(errors.UNSUPPORTED_OPERATION, str(error))
        if isinstance(error, Unavailable):
            return SqsError(
                errors.SERVICE_UNAVAILABLE, str(error) or "No answer could be had in time; repeat the request."
            )
        _log.error("request %s failed", request_id, exc_info=error)
        return SqsError(errors.INTERNAL_FAILURE, "The request failed because of an internal error.")
