"""Whom a replica that lacks too much is told to copy from."""

from __future__ import annotations

from typing import cast

from distribution_manager.core.replication import Replication
from distribution_manager.core.request import Now, Surroundings
from shadow_nodes.protocol.messages import Appended, Fenced, Learn, Position, Token, ToNode

SHARD = "00000000000000aa/0"
TOKEN = Token(3, 7)


class Around:
    """Three nodes in reach, a the nearest."""

    now = Now(1_000, 1_000)

    def __init__(self) -> None:
        self.sources: list[str] = []

    def linked(self, node: str) -> bool:
        return True

    def address(self, node: str) -> str:
        return node

    def distance_ms(self, node: str) -> float:
        return ord(node)

    def send(self, node: str, message: ToNode) -> None:
        if isinstance(message, Learn):
            self.sources.append(message.source)


def fenced(seq: int) -> Fenced:
    position = Position(2, seq)
    return Fenced(SHARD, TOKEN, "1", position, position, 0, 0)


def test_a_source_of_which_nothing_came_is_followed_by_another() -> None:
    around = Around()
    replication = Replication(SHARD, TOKEN, cast("Surroundings", around), Position(2, 100), [])
    for node in "abc":
        replication.follow(node)
    replication.fenced("a", fenced(100))
    replication.fenced("b", fenced(100))
    for _ in range(3):  # c says that it has come no further, again and again
        replication.fenced("c", fenced(0))
    assert around.sources == ["a", "b", "a"]
    replication.appended("c", Appended(SHARD, TOKEN, 50))
    assert around.sources == ["a", "b", "a", "a"], "what came from a is gone on with there"
