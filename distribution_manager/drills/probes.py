"""Questions to a member over its HTTP port: is it ready, what does it know."""

from __future__ import annotations

import http.client
import socket
from typing import Any, Final

import msgspec

from distribution_manager.drills.ports import LOOPBACK
from distribution_manager.drills.state import Kind, Member
from shadow_nodes.protocol.bearer import bearer_headers

PROBE_TIMEOUT_S: Final = 1.0
_READY: Final[dict[Kind, tuple[str, str]]] = {
    "etcd": ("client", "/health"),
    "node": ("link", "/readyz"),
    "manager": ("link", "/readyz"),
}


def get(
    port: int, path: str, timeout_s: float = PROBE_TIMEOUT_S, secret: str = "", method: str = "GET"
) -> tuple[int, bytes] | None:
    """Status and body of a GET (or another method without a body); None when there is no answer."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout_s)
    try:
        connection.request(method, path, headers=bearer_headers(secret))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def get_json(port: int, path: str, timeout_s: float = PROBE_TIMEOUT_S, secret: str = "") -> Any:
    """The JSON of a successful GET, else None."""
    answer = get(port, path, timeout_s, secret)
    if answer is None or answer[0] != http.HTTPStatus.OK:
        return None
    try:
        return msgspec.json.decode(answer[1])
    except msgspec.DecodeError:
        return None


def ask_json(
    port: int, path: str, timeout_s: float, secret: str = "", method: str = "GET"
) -> tuple[int, dict[str, Any]] | None:
    """Status and JSON object of an answer; None when there is no such answer."""
    answer = get(port, path, timeout_s, secret, method)
    if answer is None:
        return None
    try:
        return answer[0], msgspec.json.decode(answer[1], type=dict[str, Any])
    except msgspec.DecodeError:
        return None


def ready(member: Member) -> bool:
    """Whether it says that it serves, and where it has clients, accepts their connections."""
    port, path = _READY[member.kind]
    answer = get(member.ports[port], path)
    return answer is not None and answer[0] == http.HTTPStatus.OK and _accepts(member.ports.get("client"))


def _accepts(port: int | None) -> bool:
    if port is None:
        return True
    try:
        socket.create_connection((LOOPBACK, port), timeout=PROBE_TIMEOUT_S).close()
    except OSError:
        return False
    return True
