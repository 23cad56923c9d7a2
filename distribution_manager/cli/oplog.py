"""``shadowq log`` and ``shadowq replay``: what happened to a queue, and its messages once more into another."""

from __future__ import annotations

import argparse
import json
import shlex
import ssl
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from distribution_manager.cli.admin_stream import AdminStream, Endpoint, StreamEnded
from distribution_manager.cli.arguments import add_local_command
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.state import ClusterError, read_secret
from distribution_manager.links.settings import client_tls

BAR_CHARACTERS: Final = 30
WHO_CHARACTERS: Final = 22

Record = dict[str, Any]


def add_commands(commands: Any) -> None:
    """``commands``: argparse's, of ``shadowq``."""
    show = _command(commands, "log", run_log, "list what was done to a queue: operations, takeovers, promotions")
    show.add_argument("--follow", action="store_true", help="go on listing as things happen; Ctrl-C ends it")
    show.add_argument("--json", action="store_true", help="one JSON object per line")
    show.add_argument("--bodies", action="store_true", help="with the messages' bodies")

    replay = _command(commands, "replay", run_replay, "put the messages that came into a queue into another, once each")
    replay.add_argument("--into", metavar="TARGET", required=True, help="an existing queue, of the same kind")
    replay.add_argument("--rate", type=_positive, default=0, metavar="N", help="messages per second (default: any)")
    replay.add_argument("--dry-run", action="store_true", help="only count them")
    replay.add_argument("--resume", default="", metavar="ID", help="go on with a replay that was interrupted")


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    command = add_local_command(commands, name, run, text)
    command.add_argument("queue", metavar="QUEUE")
    command.add_argument("--from", dest="first", type=_positive, metavar="SEQ", help="from this entry on")
    command.add_argument("--to", dest="last", type=_positive, metavar="SEQ", help="up to this entry")
    command.add_argument(
        "--since", type=_time, metavar="TIME", help="from then on: 2026-01-31T12:00:00Z; or 15m, so long ago"
    )
    command.add_argument("--until", type=_time, metavar="TIME", help="up to then")
    command.add_argument(
        "--manager", metavar="HOST:PORT,...", default="", help="managers' link addresses, instead of --data's cluster"
    )
    command.add_argument("--secret-file", type=Path, metavar="FILE", help="the secret of the managers of --manager")
    command.add_argument(
        "--tls-ca", type=Path, metavar="FILE", help="with --manager: who signs their link certificates"
    )
    command.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="with --tls-ca: a certificate chain to show them"
    )
    command.add_argument("--tls-key", type=Path, metavar="FILE", help="the key of --tls-cert")
    return command


# --- log -----------------------------------------------------------------------------------------------------------


def run_log(options: argparse.Namespace) -> int:
    """Listing goes on with another manager where one dies, without saying an entry twice."""
    query = _range(options) | {"queue": options.queue}
    query |= {name: "1" for name in ("follow", "bodies") if getattr(options, name)}
    listed = False
    try:
        for record in _ask(options, "GET", "/admin/log").read(query, _go_on_listing):
            if record["type"] == "operation":
                listed = True
                print(json.dumps(record) if options.json else _line(record), flush=options.follow)
            elif record["type"] == "notice":
                print(f"shadowq: {record['text']}", file=sys.stderr)
            elif record["type"] == "failed":
                raise ClusterError(f"{record['text']}; go on with --from {record['next']}")
    except KeyboardInterrupt:
        if not options.follow:
            raise
    if not listed:
        print(f"shadowq: the log of {options.queue} has nothing in this range", file=sys.stderr)
    return 0


def _go_on_listing(query: Record, last: Record) -> Record:
    """What to ask the next manager for. An entry's records come at once: what is there of the last one is whole, or
    comes again from its beginning."""
    if last.get("type") != "operation":
        return query
    without = {name: value for name, value in query.items() if name != "since_ms"}
    return without | {"from": last["seq"], "after_index": last["index"]}


def _line(record: Record) -> str:
    """For people. Bodies as JSON strings, so that a line stays a line."""
    key, region = record["key"], record["region"]
    who = "shadowq" if key is None else f"{key or 'anonymous'} {region}"
    place = f"{record['seq']}.{record['index']}"
    reason = f" {record['reason']}" if "reason" in record else ""
    what = f"{record['operation']} {_detail(record)}".rstrip()
    head = f"{place:>8}  {record['time']}  epoch {record['epoch']:<3} {who:<{WHO_CHARACTERS}}"
    return f"{head}  {what}  -> {record['result']}{reason}"


def _detail(record: Record) -> str:  # noqa: PLR0911 (a table)
    match record["operation"]:
        case "send" | "accept":
            return ", ".join(_message(one) for one in record["messages"])
        case "receive":
            given = [f"{one['id']} (delivery {one['delivery']})" for one in record.get("given", [])]
            return ", ".join(given) or "nothing"
        case "delete" | "change-visibility":
            return ", ".join(_message(one) for one in record["messages"])
        case "takeover":
            return f"by {record['owner']} ({record['cause']}); primary {record['primary']}, set {record['version']}"
        case "promotion":
            return f"{record['primary_before']} to {record['primary']} ({record['cause']})"
        case "replica-set":
            before, after = ",".join(record["replicas_before"]), ",".join(record["replicas"])
            return f"{before} to {after}, version {record['version']} ({record['cause']})"
        case "configure":
            return f"version {record['settings']['version']}"
        case "move":
            return f"{record.get('moved', 0)} messages"
    return ""


def _message(one: Record) -> str:
    parts = [one["id"]] if "id" in one else [f"message {one['number']} delivery {one['delivery']}"]
    parts += [f"{one['bytes']} B"] if "bytes" in one else []
    parts += [f"group {one['group']}"] if "group" in one else []
    parts += [f"for {one['timeout_ms']} ms"] if "timeout_ms" in one else []
    parts += [f"duplicate of {one['duplicate_of']}"] if "duplicate_of" in one else []
    parts += [f"refused {one['refused']}"] if "refused" in one else []
    parts += [json.dumps(one["body"])] if "body" in one else []
    return " ".join(parts)


# --- replay --------------------------------------------------------------------------------------------------------


def run_replay(options: argparse.Namespace) -> int:
    query = _range(options) | {"source": options.queue, "into": options.into, "rate": str(options.rate)}
    query |= {"id": options.resume} if options.resume else {}
    query |= {"dry_run": "1"} if options.dry_run else {}
    bar = _Bar()
    begun: Record = {}
    done: Record = {}
    whole = not options.resume
    try:
        for record in _ask(options, "POST", "/admin/replay").read(query, _go_on_replaying):
            if record["type"] == "notice":
                bar.say(record["text"])
            elif record["type"] == "replay":
                whole = whole and not begun
                begun = begun or record
            else:
                done = record
                bar.show(record, begun)
            if record["type"] == "failed":
                raise StreamEnded(record["text"])
    except (KeyboardInterrupt, StreamEnded) as error:
        bar.end()
        why = str(error) or "interrupted"
        raise ClusterError(f"{why}{_how_to_resume(options, begun, done)}") from error
    bar.end()
    if whole:
        verb = "would be put into" if options.dry_run else "are in"
        print(f"{done['messages']} messages {verb} {options.into}; {done['left_out']} more sends had made none")
    else:
        print(f"every message of the entries up to {begun['to']} is in {options.into}")
    return 0


def _go_on_replaying(query: Record, last: Record) -> Record:
    """The same replay, so that nothing is put twice, up to the same end, from where it got to."""
    if last.get("type") == "replay":
        return query | {"id": last["id"], "from": last["from"], "to": last["to"]}
    return query | ({"from": last["next"]} if "next" in last else {})


def _how_to_resume(options: argparse.Namespace, begun: Record, done: Record) -> str:
    if not begun or options.dry_run:
        return ""
    first = done.get("next", begun["from"])
    return (
        f"; what came before entry {first} is in {options.into}; go on with: shadowq replay {options.queue} "
        f"--into {options.into} --from {first} --to {begun['to']} --resume {begun['id']}{_where(options)}"
    )


def _where(options: argparse.Namespace) -> str:
    """The options by which the same managers are asked."""
    names = ("manager", "secret_file", "tls_ca", "tls_cert", "tls_key") if options.manager else ("data",)
    given = {name.replace("_", "-"): getattr(options, name) for name in names}
    return "".join(f" --{name} {shlex.quote(str(value))}" for name, value in given.items() if value)


class _Bar:
    """On a terminal; elsewhere nothing moves."""

    def __init__(self) -> None:
        self._shown = False
        self._terminal = sys.stderr.isatty()

    def show(self, record: Record, begun: Record) -> None:
        if not self._terminal or "messages" not in record:
            return
        entries = max(1, begun["to"] - begun["from"] + 1)
        share = min(1.0, max(0.0, (record["next"] - begun["from"]) / entries))
        filled = round(share * BAR_CHARACTERS)
        bar = "#" * filled + "." * (BAR_CHARACTERS - filled)
        print(f"\r[{bar}] {share:4.0%}  {record['messages']} messages", end="", file=sys.stderr, flush=True)
        self._shown = True

    def say(self, text: str) -> None:
        self.end()
        print(f"shadowq: {text}", file=sys.stderr)

    def end(self) -> None:
        if self._shown:
            print(file=sys.stderr)
            self._shown = False


# --- arguments -----------------------------------------------------------------------------------------------------


def _ask(options: argparse.Namespace, method: str, path: str) -> AdminStream:
    look = f"look at {options.manager}" if options.manager else f"see shadowq status --data {options.data}"
    return AdminStream(_endpoints(options), method, path, f"no manager answers: {look}")


def _endpoints(options: argparse.Namespace) -> Iterator[Endpoint]:
    """Managers to ask, one after another, as they are when one is needed."""
    if not options.manager and (options.tls_ca or options.tls_cert or options.tls_key):
        raise ClusterError("--tls-ca, --tls-cert, --tls-key: go with --manager; a local cluster has no certificates")
    if options.manager:
        tls = _tls(options)
        try:
            secret = options.secret_file.read_text().strip() if options.secret_file else ""
        except OSError as error:
            raise ClusterError(
                f"--secret-file: {options.secret_file} cannot be read ({error.strerror}): name another file"
            ) from error
        for address in options.manager.split(","):
            host, _, port = address.strip().rpartition(":")
            if not host or not port.isdigit():
                raise ClusterError(f"--manager: {address!r} is not HOST:PORT")
            yield Endpoint(host, int(port), secret, tls)
        return
    cluster = LocalCluster.attach(options.data)
    for name in cluster.names:
        member = cluster.member(name)
        if member.kind == "manager":
            yield Endpoint("127.0.0.1", member.ports["link"], read_secret(cluster.data_dir))


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    """Raises ClusterError."""
    if (options.tls_cert is None) != (options.tls_key is None):
        raise ClusterError("--tls-cert goes with --tls-key: give both or none")
    if options.tls_ca is None:
        if options.tls_cert is not None:
            raise ClusterError("--tls-cert needs --tls-ca: who signs the managers' certificates")
        return None
    files = [str(file) for file in (options.tls_ca, options.tls_cert, options.tls_key) if file is not None]
    try:
        return client_tls(*files)
    except OSError as error:
        raise ClusterError(f"--tls-ca: {' '.join(files)} cannot be used: {error}") from error


def _range(options: argparse.Namespace) -> Record:
    """Raises ClusterError for one that can hold nothing."""
    if None not in (options.first, options.last) and options.first > options.last:
        raise ClusterError(f"--from {options.first} comes after --to {options.last}: swap them")
    if None not in (options.since, options.until) and options.since > options.until:
        raise ClusterError("--since is later than --until: swap them")
    found = {"from": options.first, "to": options.last, "since_ms": options.since, "until_ms": options.until}
    return {name: value for name, value in found.items() if value is not None}


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _time(text: str) -> int:
    """Unix milliseconds: of a time, UTC unless it says otherwise, or of so long ago."""
    if text[-1:] in _UNITS and text[:-1].isdigit():
        return int((time.time() - int(text[:-1]) * _UNITS[text[-1]]) * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: write 2026-01-31T12:00:00Z, or 90s, 15m, 2h, 1d for so long ago"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
