"""Mutual TLS between a manager's links and a listener."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from links_harness import FakeNode, Journal

from distribution_manager.links.node_links import NodeLinks
from distribution_manager.links.settings import client_tls, server_tls
from tests.waiting import until

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificates with openssl")


def openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ca.pem``; ``node.pem`` for localhost and ``manager.pem`` by it; ``other-ca.pem``."""
    directory = tmp_path_factory.mktemp("tls")
    elliptic = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other-ca"):
        out = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl(directory, "req", "-x509", *elliptic, *out, "-days", "2", "-subj", f"/CN={name}")
    for name in ("node", "manager"):
        (directory / "ext").write_text("subjectAltName=DNS:localhost\n")
        openssl(directory, "req", *elliptic, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        by_ca = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
        openssl(directory, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *by_ca)
    return directory


@pytest.fixture
async def secure_node(node: FakeNode, certificates: Path) -> FakeNode:
    """Wants a certificate of the ca from every client."""
    await node.stop()
    files = [str(certificates / name) for name in ("node.pem", "node.key", "ca.pem")]
    await node.start(server_tls(*files))
    return node


async def test_both_sides_show_a_certificate(
    make_links: Callable[..., NodeLinks], secure_node: FakeNode, journal: Journal, certificates: Path
) -> None:
    files = [str(certificates / name) for name in ("ca.pem", "manager.pem", "manager.key")]
    make_links(client_tls=client_tls(*files)).set_targets({"n1": f"localhost:{secure_node.port}"})
    await until(lambda: journal.count("up"))


@pytest.mark.parametrize(
    ("host", "files"),
    [
        ("localhost", ["other-ca.pem", "manager.pem", "manager.key"]),
        ("localhost", ["ca.pem"]),
        ("127.0.0.1", ["ca.pem", "manager.pem", "manager.key"]),
    ],
    ids=["node of another authority", "manager without a certificate", "certificate for another name"],
)
async def test_strangers_do_not_get_in(  # noqa: PLR0917
    make_links: Callable[..., NodeLinks],
    secure_node: FakeNode,
    journal: Journal,
    certificates: Path,
    caplog: pytest.LogCaptureFixture,
    host: str,
    files: list[str],
) -> None:
    links = make_links(client_tls=client_tls(*(str(certificates / name) for name in files)))
    links.set_targets({"n1": f"{host}:{secure_node.port}"})
    await until(lambda: any("no link to n1" in record.getMessage() for record in caplog.records))
    assert journal.events == []
