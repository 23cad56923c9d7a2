"""Rows: what is written, what is not, and that a machine made of them is the same; digests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from machine_driver import RowStore, Shard, bodies, handles

from shadow_nodes.core.machine import Kind, Machine
from shadow_nodes.core.store import Row
from shadow_nodes.protocol.commands import (
    Configure,
    Content,
    Delete,
    Note,
    Open,
    Purge,
    Receive,
    ReplicaSet,
    Send,
    Settings,
)


def kinds(rows: list[Row]) -> list[int]:
    return sorted(kind for kind, _, _ in rows)


def test_a_message_that_came_and_went_costs_no_row() -> None:
    shard = Shard()
    shard.checkpoint()
    shard.send("a")
    shard.do(Delete(handles(shard.do(Receive()))))
    changes = shard.checkpoint()
    assert kinds(changes.puts) == [Kind.HEADER, Kind.SESSION]
    assert changes.deletes == []


def test_a_content_is_written_once_and_goes_with_its_message() -> None:
    shard = Shard()
    shard.send("a", "b")
    assert kinds(shard.checkpoint().puts).count(Kind.CONTENT) == 2
    got = handles(shard.do(Receive(1)))
    assert kinds(shard.checkpoint().puts) == [Kind.HEADER, Kind.MESSAGE, Kind.SESSION]
    shard.do(Delete(got))
    assert shard.checkpoint().deletes == [(Kind.MESSAGE, 1), (Kind.CONTENT, 1)]
    assert [key for kind, key in shard.store.rows if kind == Kind.CONTENT] == [2]


def test_changed_rows_count_what_a_checkpoint_will_write() -> None:
    shard = Shard()
    shard.checkpoint()
    assert shard.machine.changed_rows() == 0
    shard.send(*"abcdefghij")
    assert shard.machine.changed_rows() == 22
    assert len(shard.checkpoint().puts) == 22
    shard.do(Delete(handles(shard.do(Receive(10)))))
    assert shard.machine.changed_rows() == 22
    assert len(shard.checkpoint().deletes) == 20


def test_a_purge_is_one_range_and_its_leftovers_do_not_come_back() -> None:
    shard = Shard(RowStore(lazy=True))
    shard.send("a", "b")
    shard.checkpoint()
    shard.do(Purge())
    shard.send("c")
    changes = shard.checkpoint()
    assert changes.drop[:2] == [(Kind.MESSAGE, 3), (Kind.CONTENT, 3)]
    assert (Kind.MESSAGE, 1) in shard.store.rows
    assert (Kind.MESSAGE, 3) not in shard.checkpoint().drop
    shard.restart()
    assert bodies(shard.do(Receive(10))) == ["c"]


def test_released_contents_are_read_back_from_their_rows() -> None:
    shard = Shard()
    shard.send("a" * 100, "b" * 100)
    assert shard.machine.release_contents(0) == 200
    shard.checkpoint()
    shard.send("c" * 100)
    digest = shard.machine.digest()
    assert shard.machine.release_contents(250) == 200
    assert shard.machine.release_contents(0) == 100
    assert shard.machine.digest() == digest
    assert [body[0] for body in bodies(shard.do(Receive(10)))] == ["a", "b", "c"]
    shard.do(Delete([(1, 1), (3, 1)]))
    assert shard.machine.release_contents(0) == 0


def test_a_released_content_goes_into_the_outbox_whole() -> None:
    shard = Shard(max_receive_count=1, dead_letter_queue="dlq", visibility_timeout_ms=10)
    shard.send("a")
    shard.checkpoint()
    shard.machine.release_contents(0)
    shard.do(Receive())
    shard.now += 10
    shard.do(Receive())
    assert shard.machine.outbox(0, 1)[0].content == Content("a")
    shard.restart()


def test_a_result_outlives_the_message_it_gave() -> None:
    shard = Shard()
    shard.send("a", "b")
    first = shard.at(90, Receive(2))
    shard.checkpoint()
    shard.do(Delete([(1, 1)]))
    shard.restart()
    assert shard.machine.answer(7, 90) == (True, first)


def test_nothing_at_all_loads_as_a_new_machine() -> None:
    machine = RowStore().load()
    assert machine.digest() == Machine().digest()


def test_bytes_that_are_no_row_are_refused() -> None:
    store = RowStore()
    store.rows[(Kind.HEADER, 0)] = b"\xc1"
    with pytest.raises(msgspec.MsgspecError):
        store.load()


def test_digests_differ_where_anything_does() -> None:
    digests = set()
    for body in "ab":
        for delay_ms in (0, 1):
            shard = Shard()
            shard.do(Send([Content(body, delay_ms=delay_ms)]))
            digests.add(shard.machine.digest())
    shard = Shard()
    shard.do(Configure(Settings(version=2)))
    digests.add(shard.machine.digest())
    assert len(digests) == 5


HISTORY = """
import sys
sys.path.insert(0, sys.argv[1])
from machine_driver import Shard, handles
from shadow_nodes.protocol.commands import *
shard = Shard(fifo=True, max_receive_count=1, dead_letter_queue="d")
for i in range(40):
    shard.send("x", group_id=str(i % 7), deduplication_id=str(i % 23))
    shard.at(i * 3 + 1000, Receive(2, 500, str(i % 5)), session=i % 3 + 10)
    shard.do(Accept(f"s{i % 4}", [Letter(i // 4 + 1, (1, i, 0), Content("y", group_id="z"), 5, "t", "s")]))
    shard.now += 200
print(shard.machine.digest())
"""


def test_the_digest_does_not_depend_on_the_order_of_hashes() -> None:
    root = Path(__file__).parents[5]
    outputs = {
        subprocess.run(
            [sys.executable, "-c", HISTORY, str(Path(__file__).parent)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(outputs) == 1


def test_the_newest_replica_set_is_remembered() -> None:
    """An entry of an older version tells of none, and takes nothing back."""
    shard = Shard()
    first, second = ReplicaSet(1, [("a", "a-1")], []), ReplicaSet(2, [("a", "a-1"), ("b", "b-1")], ["c"])
    shard.do(Open("m", replica_set=first))
    shard.do(Note("grown", "a", "a", ["a"], ["a", "b"], 2, replica_set=second))
    shard.do(Open("m"))
    assert shard.machine.replica_set == second
    shard.checkpoint()
    assert shard.store.load().replica_set == second
