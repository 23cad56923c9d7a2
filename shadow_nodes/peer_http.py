"""Questions to other nodes and managers over HTTP, by address or name, with the cluster's secret and certificates."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp

from shadow_nodes.protocol.bearer import bearer_headers
from shadow_nodes.protocol.errors import ProtocolError
from shadow_nodes.protocol.limits import MIB
from shadow_nodes.resolve import Endpoint, Resolver

ANSWER_BYTES_MAX = 64 * MIB
"""More than any page of a log, or a list of all queues, has."""
_ERRORS = (aiohttp.ClientError, OSError, TimeoutError)


class PeerHttp:
    """``tls`` None: plain HTTP. A connection per question: these are rare."""

    def __init__(self, resolver: Resolver, secret: str, tls: ssl.SSLContext | None) -> None:
        self.resolver = resolver
        self._headers = bearer_headers(secret)
        self._tls = tls

    async def ask(
        self,
        address: str,
        method: str,
        path: str,
        timeout_s: float,
        *,
        body: bytes = b"",
        query: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of the first answer that one of the address's endpoints gives. Raises OSError."""
        reason = f"{address} stands for no address"
        try:
            endpoints = await self.resolver.resolve(address)
        except ProtocolError as error:
            raise OSError(str(error)) from error
        for endpoint in endpoints:
            try:
                return await self.ask_endpoint(endpoint, method, path, timeout_s, body=body, query=query)
            except OSError as error:
                reason = str(error)
        self.resolver.forget(address)
        raise OSError(reason)

    async def ask_endpoint(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        timeout_s: float,
        *,
        body: bytes = b"",
        query: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Raises OSError."""
        security: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls, "server_hostname": endpoint.name}
        url = endpoint.url("http" if self._tls is None else "https", path)
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with (
                aiohttp.ClientSession(headers=self._headers, timeout=timeout, auto_decompress=False) as session,
                # a peer redirects nobody: whoever does would have this process ask, secret and all, what it likes
                session.request(
                    method, url, params=query, data=body or None, allow_redirects=False, **security
                ) as response,
            ):
                answer = response.status, await _read(response)
        except _ERRORS as error:
            self.resolver.failed(endpoint)
            raise OSError(f"{endpoint.name}:{endpoint.port}: {error or type(error).__name__}") from error
        self.resolver.answered(endpoint)
        return answer


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Raises OSError."""
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > ANSWER_BYTES_MAX:
            raise OSError(f"it answers more than {ANSWER_BYTES_MAX} bytes")
    return bytes(body)
