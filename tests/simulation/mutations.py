"""Deliberate faults: each is put into a copy of the code, alone, and the simulation must find it.

python -m tests.simulation.mutations [--only WORD] [--seeds 400]: prints a row of docs/simulation.md's table for each,
with the scenario scripts that do not read as before.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MANAGER = "distribution_manager/core"
NODE = "shadow_nodes/core"


@dataclass(frozen=True)
class Mutation:
    """``before`` occurs once in the file, and becomes ``after``.

    ``also``: (path, before, after) of what else is changed, where another check covers for the one that is broken.
    """

    name: str
    path: str
    before: str
    after: str
    profile: str = "all"
    also: tuple[tuple[str, str, str], ...] = ()

    @property
    def edits(self) -> tuple[tuple[str, str, str], ...]:
        return ((self.path, self.before, self.after), *self.also)


MUTATIONS = (
    Mutation("fence not persisted", f"{NODE}/replica.py", "            self._pending().promised = token\n", ""),
    Mutation(
        "ack before fsync",
        f"{NODE}/node.py",
        "                self._appended[link, message.shard] = Appended(message.shard, message.token, answer)\n",
        "                self._sends.append((link, Appended(message.shard, message.token, answer)))\n",
    ),
    Mutation(
        "promise told before it is written",
        f"{NODE}/node.py",
        "        self._sends_after_write.append((link, answer))\n\n    def _new_replica",
        "        self._sends.append((link, answer))\n\n    def _new_replica",
    ),
    Mutation(
        "commit of an old epoch's entry",
        f"{MANAGER}/replication.py",
        "if position is None or position.epoch != self.token.epoch:",
        "if position is None:",
    ),
    Mutation(
        "quorum too small by one", f"{MANAGER}/replication.py", "return size // 2 + 1", "return (size + 1) // 2 or 1"
    ),
    Mutation("quorum of three is one", f"{MANAGER}/replication.py", "return size // 2 + 1", "return max(1, size // 2)"),
    Mutation(
        "FIFO delete with an old receipt",
        f"{NODE}/machine/handling.py",
        "current = number == delivery.number and delivery.until_ms > now_ms",
        "current = True",
    ),
    Mutation(
        "change of visibility with an old receipt",
        f"{NODE}/machine/handling.py",
        "if message is None or number < 1 or message.delivery.number != number:",
        "if message is None:",
    ),
    Mutation(
        "deduplication window lost when a checkpoint is loaded",
        f"{NODE}/machine/checkpoint.py",
        "        state.duplicates.load(_decode_duplicate(value), state.now_ms)\n",
        "        pass\n",
    ),
    Mutation(
        "session results lost when a checkpoint is loaded",
        f"{NODE}/machine/checkpoint.py",
        "        session.keep(counter, _unkeep(state, result))\n",
        "        pass\n",
    ),
    Mutation(
        "session results not looked at",
        f"{NODE}/machine/machine.py",
        "        if counter in session.results:\n            self.asides.append((operation.command, _REPEATED))\n"
        "            return session.results[counter]\n",
        "",
    ),
    Mutation(
        "applies what it has not matched",
        f"{NODE}/replica.py",
        "self._advance(min(message.commit_seq, self.matched), results)",
        "self._advance(min(message.commit_seq, self.last.seq), results)",
        "tails",
    ),
    Mutation(
        "matched survives a new promise",
        f"{NODE}/replica.py",
        "            self.promised = token\n            self.matched = self.committed.seq\n",
        "            self.promised = token\n            self.matched = self.last.seq\n",
        "tails",
    ),
    Mutation(
        "applies before the commit",
        f"{NODE}/replica.py",
        "self._advance(min(message.commit_seq, self.matched), results)",
        "self._advance(self.matched, results)",
    ),
    Mutation(
        "restart replays to the log's end",
        f"{NODE}/replica.py",
        "            self._advance(min(after, record.commit_seq), None)\n",
        "            self._advance(after, None)\n",
    ),
    Mutation(
        "a lost store votes in a takeover",
        f"{MANAGER}/takeover.py",
        "if incarnations.get(node) == answer.incarnation and not",
        "if node in incarnations and not",
        "deserters",
    ),
    Mutation(
        "a lost store counts for commits",
        f"{MANAGER}/replication.py",
        "follower is not None and follower.incarnation == replica.incarnation else 0",
        "follower is not None else 0",
        "deserters",
    ),
    Mutation(
        "a lost store confirms an empty answer",
        f"{MANAGER}/confirmation.py",
        "self._around.incarnation(replica.node) == replica.incarnation",
        "self._around.incarnation(replica.node) is not None",
        "deserters",
    ),
    Mutation(
        "a repeated send is refused for want of room",
        f"{MANAGER}/owner.py",
        "return isinstance(request.command, Send | Accept) and not request.repeated",
        "return isinstance(request.command, Send | Accept)",
        "room",
    ),
    Mutation(
        "a full disk's node promises",
        f"{NODE}/node.py",
        "        if self.out_of_room:\n            self._refuse(link, message)\n            return\n"
        "        if replica is None:\n",
        "        if self.out_of_room:\n"
        "            answer = replica.fence(message, self._store.incarnation, now.clock_ms) if replica else None\n"
        "            self._sends += [(link, answer)] if answer else []\n"
        "            return\n"
        "        if replica is None:\n",
        "disks",
    ),
    Mutation(
        "messages expire too early",
        f"{NODE}/machine/upkeep.py",
        "    horizon_ms = now_ms - state.settings.retention_ms\n",
        "    horizon_ms = now_ms - state.settings.retention_ms // 2\n",
    ),
    Mutation(
        "fence takes the same epoch of another attempt",
        f"{NODE}/replica.py",
        "return token != self.promised and token.epoch <= self.promised.epoch",
        "return token != self.promised and token.epoch < self.promised.epoch",
        "restored",
    ),
    Mutation(
        "append takes any token",
        f"{NODE}/replica.py",
        "        if message.token != self.promised:\n"
        "            return Stale(self.shard, message.token, self.promised)\n"
        "        if message.token.epoch < self.last.epoch:",
        "        if False:",
    ),
    Mutation(
        "fence takes an older token",
        f"{NODE}/replica.py",
        "return token != self.promised and token.epoch <= self.promised.epoch",
        "return False",
    ),
    Mutation(
        "the log's agreement is not looked at",
        f"{NODE}/replica.py",
        "return position.seq <= self.committed.seq or self.epoch_at(position.seq) == position.epoch",
        "return True",
        "tails",
    ),
    Mutation(
        "a takeover chooses the longest log, whatever its epoch",
        f"{MANAGER}/takeover.py",
        "key=lambda node: (votes[node].last, node)",
        "key=lambda node: (votes[node].last.seq, node)",
        "tails",
    ),
    Mutation(
        "a takeover drops the uncommitted tail",
        f"{MANAGER}/takeover.py",
        "        last = self.fenced[self._best].last\n        if self._fetched.seq < last.seq:\n",
        "        last = self._fetched\n        if self._fetched.seq < last.seq:\n",
    ),
    Mutation(
        "time goes back at a takeover",
        f"{MANAGER}/owner.py",
        "takeover.time_floor_ms()",
        "0",
    ),
    Mutation(
        "empty answers are not confirmed",
        f"{MANAGER}/owner.py",
        "        self._confirmation.waiting += self._desk.give_up(self._around.now.monotonic_ms, now_ms)\n",
        "        for request in self._desk.give_up(self._around.now.monotonic_ms, now_ms):\n"
        "            request.finish(request, Verdict.DONE, Batch([]), None)\n",
        "deserters",
    ),
    Mutation(
        "letters are taken twice",
        f"{NODE}/machine/sending.py",
        "        if letter.number > last:\n",
        "        if letter.number > 0:\n",
    ),
    Mutation(
        "letters are settled before they are taken",
        f"{MANAGER}/letters.py",
        "    office.router.submit(target.shard(), Accept(shard, run), 0, done)\n",
        "    owner.letters_carried(run[-1].number)\n",
    ),
    Mutation(
        "a repetition goes under a new id",
        f"{MANAGER}/router.py",
        "                request.repeated |= verdict is Verdict.RETRY\n                self._lodge(request)\n",
        "                self._mine[shard].pop(request.counter)\n"
        "                self._counter += 1\n"
        "                request.counter = self._counter\n"
        "                self._mine[shard][request.counter] = request\n"
        "                self._lodge(request)\n",
    ),
    Mutation(
        "a repeated receive is answered at the desk",
        f"{MANAGER}/router.py",
        "                request.repeated |= verdict is Verdict.RETRY\n",
        "",
    ),
    Mutation(
        "a change of the set does not need the old set's quorum",
        f"{MANAGER}/membership.py",
        "            replication.set_voters(self.record.replicas, wanted.record.replicas)\n",
        "            replication.set_voters(wanted.record.replicas)\n",
        "relearn",
    ),
    Mutation(
        "a change of the set does not need the new set's quorum",
        f"{MANAGER}/membership.py",
        "            replication.set_voters(self.record.replicas, wanted.record.replicas)\n",
        "            replication.set_voters(self.record.replicas)\n",
        "relearn",
    ),
    Mutation(
        "a newcomer is admitted before it has caught up",
        f"{MANAGER}/membership.py",
        "if follower.incarnation == incarnation and caught_up:",
        "if follower.incarnation == incarnation:",
        "deserters",
    ),
    Mutation(
        "a removed replica forgets its promise",
        f"{NODE}/node.py",
        "        replica.fence(Fence(shard, token), self._store.incarnation, now.clock_ms)\n",
        "",
        "healing",
    ),
    Mutation(
        "a removed replica keeps its promise in memory only",
        f"{NODE}/node.py",
        "        replica.fence(Fence(shard, token), self._store.incarnation, now.clock_ms)\n",
        "        replica.promised = token\n",
        "healing",
    ),
    Mutation(
        "a learner is admitted before it has caught up",
        f"{MANAGER}/healing.py",
        "    if learner in situation.well:\n",
        "    if learner and _fit(situation, learner):\n",
        "relearn",
    ),
    Mutation(
        "what was said over an older link is heard",
        f"{NODE}/node.py",
        "        if item.superseded:\n            return\n",
        "",
        "relearn",
    ),
    Mutation(
        "a node that was told to retire learns at once",
        f"{MANAGER}/healing.py",
        "    barred = {*situation.members, *situation.retiring, situation.record.learner}\n",
        "    barred = {*situation.members, situation.record.learner}\n",
        "relearn",
    ),
    Mutation(
        "a restored etcd's older set is believed",
        f"{MANAGER}/replica_sets.py",
        "    if known.version < record.version:\n",
        "    if known.version or not known.version:\n",
        "restores",
    ),
    Mutation(
        "a takeover believes a restored etcd's older set",
        f"{MANAGER}/takeover.py",
        "        if record is self.record:\n",
        "        if record is record:\n",
        "restores",
    ),
    Mutation(
        "the chosen log is not asked for a newer set",
        f"{MANAGER}/takeover.py",
        "        if not self._put_right(self._logged):\n            self.step = Step.DONE\n",
        "        self.step = Step.DONE\n",
        "restores",
    ),
    Mutation(
        "a restart forgets the replica set",
        f"{NODE}/machine/checkpoint.py",
        "    state.replica_set = row.replica_set\n",
        "",
        "restores",
    ),
    Mutation(
        "a set changes again before the log tells of it",
        f"{MANAGER}/membership.py",
        "        if self._asking or self._telling_seq:\n",
        "        if self._asking:\n",
        "restores",
    ),
    Mutation(
        "a replica is replaced before the log tells of it",
        f"{MANAGER}/membership.py",
        "        self._former = () if always_meet(former, self.record.replicas) else former\n",
        "        self._former = ()\n",
        "restores",
    ),
    Mutation(
        "a node retires before those who stay know of it",
        f"{MANAGER}/membership.py",
        "        if outsiders and self._is_known(self._holder.replication):\n",
        "        if outsiders:\n",
        "restores",
    ),
    Mutation(
        "former replicas are told nothing",
        f"{MANAGER}/outsiders.py",
        "            self._around.send(node, Retire(self._shard, record.token))\n",
        "",
        "healing",
    ),
    Mutation(
        "a tombstone votes in a takeover",
        f"{MANAGER}/takeover.py",
        " and not answer.retired\n",
        "\n",
        "healing",
    ),
    Mutation(
        "a lock of unknown outcome is believed",
        f"{MANAGER}/takeover.py",
        "        if outcome is None:\n            self._read_again()\n            return\n        self._refused(",
        "        if outcome is None:\n"
        "            self.record = wanted\n            self._begin_fence()\n            return\n"
        "        self._refused(",
    ),
    Mutation(
        "a lock of unknown outcome is believed, and nodes take the same epoch of another attempt",
        f"{MANAGER}/takeover.py",
        "        if outcome is None:\n            self._read_again()\n            return\n        self._refused(",
        "        if outcome is None:\n"
        "            self.record = wanted\n            self._begin_fence()\n            return\n"
        "        self._refused(",
        "locks",
        (
            (
                f"{NODE}/replica.py",
                "return token != self.promised and token.epoch <= self.promised.epoch",
                "return token != self.promised and token.epoch < self.promised.epoch",
            ),
        ),
    ),
    Mutation(
        "a copy goes on after its node has retired",
        f"{NODE}/node.py",
        "        return waiting if waiting is not None and waiting.learning == pull.learning else None\n",
        "        return waiting\n",
        "relearn",
    ),
    Mutation(
        "a learner is admitted before it has caught up, and whoever holds what",
        f"{MANAGER}/healing.py",
        "    if learner in situation.well:\n",
        "    if learner and _fit(situation, learner):\n",
        "healing",
        ((f"{MANAGER}/membership.py", "        if replication.holds(record.replicas):\n", "        if True:\n"),),
    ),
    Mutation(
        "a FIFO group goes on past a member in flight",
        f"{NODE}/machine/fifo.py",
        "        if group.in_flight or group.id in self._blocked:\n            return\n",
        "        if group.id in self._blocked:\n            return\n",
    ),
    Mutation(
        "a snapshot forgets the outbox",
        f"{NODE}/machine/checkpoint.py",
        "            state.outbox.put(_decode_letter(value), state.settings.fifo)\n",
        "            pass\n",
    ),
)


def apply(mutation: Mutation, root: Path) -> None:
    for name, before, after in mutation.edits:
        path = root / name
        text = path.read_text()
        count = text.count(before)
        if count != 1:
            raise ValueError(f"{mutation.name}: its text occurs {count} times in {name}")
        path.write_text(text.replace(before, after))


def copy_to(root: Path) -> None:
    """The code as it was committed last: what others are just changing has no part in this."""
    archive = subprocess.run(
        ["git", "archive", "HEAD", "distribution_manager", "shadow_nodes", "tests/simulation", "tests/scenarios"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    subprocess.run(["tar", "x", "-C", str(root)], input=archive.stdout, check=True)


def _python(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def hunt(mutation: Mutation | None, seeds: int) -> str:
    """A row of the table. None: the code as it is, which must not fail."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        copy_to(root)
        if mutation is not None:
            apply(mutation, root)
        profile = "all" if mutation is None else mutation.profile
        start = time.monotonic()
        scripts = re.findall(r"^--- (\w+)\.txt", _python(root, "tests.scenarios").stdout, re.MULTILINE)
        done = _python(root, "tests.simulation", "--seeds", f"1-{seeds}", "--stop", "--profile", profile)
    name = "none: the code as it is" if mutation is None else mutation.name
    match = re.search(r"seed (\d+): (?:invalid|unknown): ([^:]*): ([^\n]*)", done.stdout)
    if match is None:
        error = done.stderr[-200:] if done.returncode not in (0, 1) else ""
        return f"| {name} | not in {seeds} seeds | | {', '.join(scripts)} | {error}"
    seed = match[1] if profile == "all" else f"{match[1]} of `{profile}`"
    detail = match[3][:70].replace("|", "/")
    return f"| {name} | {seed} | {match[2]} | {', '.join(scripts)} | {detail}, {time.monotonic() - start:.0f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="those with this in their name")
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--check", action="store_true", help="only that every text is found")
    arguments = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if arguments.only in mutation.name]
    if arguments.check:
        return check(chosen)
    for mutation in chosen:
        print(hunt(mutation, arguments.seeds), flush=True)
    return 0


def check(mutations: list[Mutation]) -> int:
    wrong = 0
    for mutation in mutations:
        for path, before, _ in mutation.edits:
            count = (ROOT / path).read_text().count(before)
            if count != 1:
                print(f"{mutation.name}: its text occurs {count} times in {path}")
                wrong += 1
    return wrong


if __name__ == "__main__":
    raise SystemExit(main())
