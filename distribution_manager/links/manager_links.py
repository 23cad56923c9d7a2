"""Links from this manager to every other: Greeting both ways, then the dialler asks and the listener answers."""

from __future__ import annotations

from collections.abc import Callable

from distribution_manager.core.messages import (
    Greeting,
    ManagerMessage,
    decode_manager_frame,
    encode_manager_frame,
)
from distribution_manager.links.dialling import Dialler
from distribution_manager.links.settings import AtTurnEnd, LinkSettings
from shadow_nodes.protocol.errors import ProtocolError
from shadow_nodes.resolve import Resolver


class ManagerLinks(Dialler[ManagerMessage, ManagerMessage, Greeting]):
    """Targets are manager names. ``on_messages`` gets Reply and ManagerPong."""

    def __init__(
        self,
        greeting: Greeting,
        resolver: Resolver,
        settings: LinkSettings,
        *,
        on_up: Callable[[str, Greeting], None],
        on_messages: Callable[[str, list[ManagerMessage]], None],
        on_down: Callable[[str], None],
        at_turn_end: AtTurnEnd | None = None,
    ) -> None:
        super().__init__(
            resolver, settings, on_up=on_up, on_messages=on_messages, on_down=on_down, at_turn_end=at_turn_end
        )
        self._own = greeting

    def _greeting(self) -> ManagerMessage:
        return self._own

    def _encode(self, messages: list[ManagerMessage]) -> bytes:
        return encode_manager_frame(messages)

    def _decode(self, frame: bytes) -> list[ManagerMessage]:
        return decode_manager_frame(frame)

    def _welcome(self, peer: str, message: ManagerMessage) -> Greeting:
        greeting = check_greeting(self._own, message)
        if greeting.manager != peer:
            raise ProtocolError(f"that is manager {greeting.manager}")
        return greeting


def check_greeting(own: Greeting, message: ManagerMessage) -> Greeting:
    """What either side asks of the other's first message. Raises ProtocolError."""
    if not isinstance(message, Greeting):
        raise ProtocolError(f"began with {type(message).__name__}, not a Greeting")
    if message.version != own.version:
        raise ProtocolError(f"manager {message.manager} speaks version {message.version}, this one {own.version}")
    if message.cluster != own.cluster:
        raise ProtocolError(f"manager {message.manager} is of cluster {message.cluster}, not {own.cluster}")
    return message
