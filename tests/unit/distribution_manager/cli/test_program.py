"""Arguments, and errors of one line; what the commands do to processes is in tests/integration."""

from __future__ import annotations

import ast
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from distribution_manager import cli
from distribution_manager.cli import local, processes, program
from distribution_manager.cli.arguments import FAILED, MISUSED
from distribution_manager.config import ManagerConfig
from distribution_manager.drills.commands import Commands
from distribution_manager.drills.plan import PORT_DEFAULT, add_region, plan
from distribution_manager.drills.state import ClusterError, make_secret, read_secret
from shadow_nodes.config import parse_arguments


def test_defaults() -> None:
    options = program.build_parser().parse_args(["up"])
    assert (options.data, options.port, options.regions, options.detach) == (Path(".shadowq"), None, None, False)
    state = plan(None, None, None)
    assert state.regions == ["us-east-1", "eu-west-1", "ap-southeast-1"]
    clients = [member.ports["client"] for member in state.members.values() if member.kind == "manager"]
    assert clients == [PORT_DEFAULT, PORT_DEFAULT + 1, PORT_DEFAULT + 2]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice"),
        (["up", "--port", "many"], "--port"),
        (["restart"], "NAME"),
        (["restart", "node-x", "--wait-s", "0"], "'0' is not a whole number of seconds from 1 on"),
        (["up", "--wait-s", "long"], "'long' is not a whole number of seconds"),
        (["log", "q", "--since", "yesterday"], "'yesterday' is no time: write 2026-"),
        (["log", "q", "--until", ""], "'' is no time"),
        (["log", "q", "--from", "0"], "'0' is not a whole number from 1 on"),
        (["replay", "q", "--into", "r", "--rate", "fast"], "'fast' is not a whole number from 1 on"),
    ],
)
def test_misuse_is_one_line(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == MISUSED
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert text in error
    assert "--help" in error


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        (["--from", "5", "--to", "2"], "--from 5 comes after --to 2"),
        (["--since", "1h", "--until", "2h"], "--since is later than --until"),
    ],
)
def test_a_range_that_can_hold_nothing(bounds: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["log", "q"], ["replay", "q", "--into", "r"]):
        assert cli.main([*command, *bounds]) == FAILED
        assert text in capsys.readouterr().err


def test_a_node_s_misuse_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parse_arguments(["--bogus", "3"])
    assert raised.value.code == MISUSED
    assert capsys.readouterr().err == "shadowq node: unrecognized arguments: --bogus 3 (see shadowq node --help)\n"


def test_a_wrong_manager_setting_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["manager", "--name", "m", "--region", "r"]) == FAILED
    assert capsys.readouterr().err.startswith("shadowq: etcd: is needed: etcd's client endpoints")


def test_etcd_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(processes, "ETCD_WAIT_S", 0.01)
    assert cli.main(["manager", "--name", "m", "--region", "r", "--etcd", "127.0.0.1:1"]) == FAILED
    assert capsys.readouterr().err.startswith("shadowq: etcd: cannot be reached at 127.0.0.1:1: start it, or")


@pytest.mark.parametrize(
    ("regions", "port", "text"),
    [
        (["a", "a"], None, "different names"),
        (["a b"], None, "not a region's name"),
        (None, 65535, "leaves no room"),
        (None, -1, "leaves no room"),
    ],
)
def test_plans_refused(regions: list[str] | None, port: int | None, text: str) -> None:
    with pytest.raises(ClusterError, match=text):
        plan(None, regions, port)


def test_another_port_for_a_stored_cluster() -> None:
    stored = plan(None, ["a", "b"], 9324)
    moved = plan(stored, None, 9400)
    assert [moved.members[f"manager-{region}"].ports["client"] for region in "ab"] == [9400, 9401]


def test_a_region_more() -> None:
    state = plan(None, ["a", "b"], 9324)
    assert add_region(state, "c") == ["node-c", "manager-c"]
    assert state.regions == ["a", "b", "c"]
    assert plan(state, ["a", "b", "c"], None) is state
    for member in state.members.values():
        member.ports = {name: port or 9999 for name, port in member.ports.items()}
    node = Commands().command(state, state.members["node-c"], Path("data"))
    assert node[node.index("--join") + 1].count("127.0.0.1:") == 3
    assert "--join" not in Commands().command(state, state.members["node-a"], Path("data"))
    manager = Commands().command(state, state.members["manager-c"], Path("data"))
    assert manager[manager.index("--nodes") + 1] == "", "its node joins by itself"


@pytest.mark.parametrize(("region", "text"), [("a", "is in this cluster already"), ("a b", "not a region's name")])
def test_a_region_refused(region: str, text: str) -> None:
    state = plan(None, ["a", "b"], 9324)
    with pytest.raises(ClusterError, match=text):
        add_region(state, region)
    assert state.regions == ["a", "b"]


def test_the_commands_of_the_page_on_joining_parse() -> None:
    page = (Path(__file__).parents[4] / "docs" / "joining.md").read_text()
    commands = [shlex.split(line)[1:] for line in page.splitlines() if line.startswith("shadowq ")]
    assert [command[0] for command in commands] == ["node", "manager"]
    node = parse_arguments(commands[0][1:])
    assert (str(node.join[0]), str(node.advertise)) == ("_shadowq-link._tcp.example.org", "node-1.example.org:7600")
    options = vars(program.build_parser().parse_args(commands[1]))
    config = ManagerConfig.from_text({**options, "secret_file": __file__})
    assert (str(config.etcd[0]), str(config.link_address)) == (
        "_etcd-client._tcp.example.org",
        "manager-1.example.org:9424",
    )


def test_every_setting_is_an_option() -> None:
    options = vars(program.build_parser().parse_args(["manager"]))
    assert {setting.name for setting in fields(ManagerConfig)} <= set(options)


def test_what_up_starts_parses(tmp_path: Path) -> None:
    """The manager's command line of a local cluster is one that ``shadowq manager`` takes."""
    state = plan(None, ["a", "b"], 9324)
    for member in state.members.values():
        member.ports = {name: port or 9999 for name, port in member.ports.items()}
    make_secret(tmp_path)
    command = Commands().command(state, state.members["manager-b"], tmp_path)
    config = ManagerConfig.from_text(vars(program.build_parser().parse_args(command[3:])))
    assert (config.name, config.region, config.cluster) == ("manager-b", "b", state.cluster)
    assert config.endpoint == "http://127.0.0.1:9325"
    assert config.secret() == read_secret(tmp_path).encode()
    assert [str(node) for node in config.nodes] == ["127.0.0.1:9999"]


@pytest.mark.parametrize("endpoints", [{"a": "http://x:1"}, {"a": "http://x:1", "b": "http://x:2", "c": "http://x:3"}])
def test_the_snippet_is_python(endpoints: dict[str, str]) -> None:
    code = local.snippet(endpoints)
    ast.parse(code)
    for endpoint in list(endpoints.values())[:2]:
        assert endpoint in code


INTERRUPTED_WHILE_IMPORTING = """
import sys

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == "distribution_manager.drills.local":
            raise KeyboardInterrupt

sys.meta_path.insert(0, CtrlC())
from distribution_manager.cli import main
sys.exit(main(["status"]))
"""


def test_ctrl_c_while_python_still_imports_is_one_line() -> None:
    command = [sys.executable, "-c", INTERRUPTED_WHILE_IMPORTING]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (FAILED, "", "shadowq: interrupted\n")
