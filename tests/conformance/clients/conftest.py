"""Other people's clients, each in a directory of its own, kept in pytest's cache, which ``make clean`` empties.

A client whose packages cannot be had (no registry in reach) is skipped, with what the installer said as the reason.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.conformance.conftest import Bench

HERE = Path(__file__).parent
INSTALL_TIMEOUT_S = 600
RUN_TIMEOUT_S = 240
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "conformance",
    "AWS_SECRET_ACCESS_KEY": "conformance",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_PAGER": "",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}

Install = Callable[[Path], Sequence[str]]
"""Given the directory to fill: the installer's command."""


class Clients:
    """Installs, and makes command lines and environments for what was installed."""

    def __init__(self, cache: Path, home: Path) -> None:
        self._cache = cache
        self._home = home

    def python(self, name: str) -> tuple[list[str], dict[str, str]]:
        """(command, environment) of an interpreter that sees nothing but requirements/``name``.txt, or a skip."""
        requirements = HERE / "requirements" / f"{name}.txt"
        folder = self._installed(
            name,
            requirements.read_bytes() + sys.version.encode(),
            lambda target: [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--target", str(target), "--requirement", str(requirements)),
            ],
        )
        return [sys.executable, "-S", "-s"], self.environment({"PYTHONPATH": str(folder)})

    def javascript(self) -> Path:
        """A directory with package.json, the lock file's packages and the programs, or a skip."""
        if shutil.which("npm") is None or shutil.which("node") is None:
            pytest.skip("there is no node or no npm on this machine")
        source = HERE / "javascript"
        lock = (source / "package-lock.json").read_bytes()
        folder = self._installed("javascript", lock, self._npm_command)
        for program in source.glob("*.mjs"):
            shutil.copy(program, folder)
        return folder

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """No settings of the user's own: no profiles, no proxies."""
        return {"PATH": os.environ["PATH"], "HOME": str(self._home), **ENVIRONMENT, **(more or {})}

    @staticmethod
    def _npm_command(target: Path) -> Sequence[str]:
        target.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / "javascript" / name, target)
        return ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(target)]

    def _installed(self, name: str, contents: bytes, install: Install) -> Path:
        folder = self._cache / f"{name}-{hashlib.sha256(contents).hexdigest()[:12]}"
        if not folder.exists():
            new = folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            done = subprocess.run(install(new), capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["it said nothing"]
                pytest.skip(f"{name} cannot be installed: {lines[-1]}")
            new.rename(folder)
        return folder


def run(command: Sequence[str], environment: Mapping[str, str], folder: Path | None = None) -> str:
    """What a program printed; it must succeed."""
    done = subprocess.run(
        command, env=dict(environment), cwd=folder, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def clients(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Clients:
    return Clients(pytestconfig.cache.mkdir("clients"), tmp_path_factory.mktemp("home"))


@pytest.fixture
def queues(benches: dict[str, Bench]) -> tuple[str, str]:
    """Names of a standard and a FIFO queue that the manager which clients use does not own."""
    bench = benches["json"]
    standard, fifo = (bench.queue(fifo=fifo).rpartition("/")[2] for fifo in (False, True))
    return standard, fifo


@pytest.fixture
def endpoint(benches: dict[str, Bench]) -> str:
    return benches["json"].endpoint
