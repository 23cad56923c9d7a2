"""Links to nodes: Hello, Welcome, then messages both ways."""

from __future__ import annotations

from collections.abc import Callable

from distribution_manager.links.dialling import Dialler
from distribution_manager.links.settings import AtTurnEnd, LinkSettings
from shadow_nodes.protocol.errors import ProtocolError
from shadow_nodes.protocol.limits import PROTOCOL_VERSION
from shadow_nodes.protocol.messages import Hello, ToManager, ToNode, Welcome, decode_to_manager, encode_frame
from shadow_nodes.resolve import Resolver


class NodeLinks(Dialler[ToNode, ToManager, Welcome]):
    """Targets are node names. The Welcome goes to ``on_up`` only; what follows, Sightings first, to ``on_messages``."""

    def __init__(
        self,
        hello: Hello,
        resolver: Resolver,
        settings: LinkSettings,
        *,
        on_up: Callable[[str, Welcome], None],
        on_messages: Callable[[str, list[ToManager]], None],
        on_down: Callable[[str], None],
        at_turn_end: AtTurnEnd | None = None,
    ) -> None:
        super().__init__(
            resolver, settings, on_up=on_up, on_messages=on_messages, on_down=on_down, at_turn_end=at_turn_end
        )
        self._hello = hello

    def _greeting(self) -> ToNode:
        return self._hello

    def _encode(self, messages: list[ToNode]) -> bytes:
        return encode_frame(messages)

    def _decode(self, frame: bytes) -> list[ToManager]:
        return decode_to_manager(frame)

    def _welcome(self, peer: str, message: ToManager) -> Welcome:
        if not isinstance(message, Welcome):
            raise ProtocolError(f"answered Hello with {type(message).__name__}")
        if message.version != PROTOCOL_VERSION:
            raise ProtocolError(f"speaks version {message.version}, this manager {PROTOCOL_VERSION}")
        if (message.cluster, message.node) != (self._hello.cluster, peer):
            raise ProtocolError(f"that is node {message.node} of cluster {message.cluster}")
        return message
