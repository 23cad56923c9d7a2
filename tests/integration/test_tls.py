"""TLS as processes use it: an HTTPS endpoint whose certificate is replaced while it serves, and mutual TLS on links."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from distribution_manager.coordination.embedded import EmbeddedEtcd
from distribution_manager.drills.ports import free_run
from distribution_manager.links.settings import client_tls
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificates with openssl"),
]
WAIT_S = 30.0
until = partial(wait_for, within_s=WAIT_S)


def openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


def certify(directory: Path, name: str) -> None:
    """``name.pem`` and ``name.key``, for 127.0.0.1, signed by ``ca.pem``; made aside, then put in place."""
    elliptic = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    (directory / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(directory, "req", *elliptic, "-keyout", "new.key", "-out", "new.csr", "-subj", f"/CN={name}")
    by_ca = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
    openssl(directory, "x509", "-req", "-in", "new.csr", "-out", "new.pem", *by_ca)
    (directory / "new.key").replace(directory / f"{name}.key")
    (directory / "new.pem").replace(directory / f"{name}.pem")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    elliptic = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    # Python 3.13 and later refuse an authority that does not say what its key is for
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl(
        directory,
        "req",
        "-x509",
        *elliptic,
        *usage,
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-days",
        "2",
        "-subj",
        "/CN=ca",
    )
    for name in ("node", "manager", "endpoint"):
        certify(directory, name)
    (directory / "secret").write_text(secrets.token_hex(16))
    return directory


class Cluster:
    """etcd, a node and a manager, whose links are mutual TLS, and an HTTPS endpoint."""

    def __init__(self, files: Path, data: Path) -> None:
        self.files, self.data = files, data
        self.client_port, self.link_port, self.node_port = (free_run(1) for _ in range(3))
        self.etcd = EmbeddedEtcd(data / "etcd")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        asyncio.run(self.etcd.start())
        tls = {"ca": self.files / "ca.pem"}
        node = {
            "node": "n1",
            "region": "here",
            "cluster": "tls",
            "data": self.data / "node",
            "listen": f"127.0.0.1:{self.node_port}",
            "secret-file": self.files / "secret",
            "tls-cert": self.files / "node.pem",
            "tls-key": self.files / "node.key",
            "tls-ca": tls["ca"],
            "tls-client-ca": tls["ca"],
        }
        manager = {
            "name": "m1",
            "region": "here",
            "cluster": "tls",
            "listen": f"127.0.0.1:{self.client_port}",
            "link-listen": f"127.0.0.1:{self.link_port}",
            "etcd": self.etcd.endpoint,
            "nodes": f"127.0.0.1:{self.node_port}",
            "secret-file": self.files / "secret",
            "link-tls-cert": self.files / "manager.pem",
            "link-tls-key": self.files / "manager.key",
            "link-tls-ca": tls["ca"],
            "tls-cert": self.files / "endpoint.pem",
            "tls-key": self.files / "endpoint.key",
        }
        self._spawn("node", ["-m", "shadow_nodes"], node)
        self._spawn("manager", ["-m", "distribution_manager", "manager"], manager)

    def _spawn(self, name: str, program: list[str], options: dict[str, object]) -> None:
        arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        log = (self.data / f"{name}.log").open("wb")
        with log:
            self.processes[name] = subprocess.Popen([sys.executable, *program, *arguments], stdout=log, stderr=log)

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            process.terminate()
            process.wait(WAIT_S)
        asyncio.run(self.etcd.stop())

    def sqs(self) -> Any:
        return boto3.client(
            "sqs",
            endpoint_url=f"https://127.0.0.1:{self.client_port}",
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
            verify=str(self.files / "ca.pem"),
            config=Config(retries={"max_attempts": 0}),
        )

    def shown_certificate(self) -> bytes:
        context = ssl.create_default_context(cafile=self.files / "ca.pem")
        with (
            socket.create_connection(("127.0.0.1", self.client_port), timeout=WAIT_S) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            return secure.getpeercert(binary_form=True) or b""


@pytest.fixture(scope="module")
def cluster(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(files, tmp_path_factory.mktemp("data"))
    cluster.start()
    yield cluster
    cluster.stop()


def test_messages_go_over_tls_all_the_way(cluster: Cluster) -> None:
    sqs = cluster.sqs()
    urls: list[str] = []

    def created() -> bool:
        try:
            urls.append(sqs.create_queue(QueueName="q", Attributes={"ShadowFactor": "0"})["QueueUrl"])
        except (BotoCoreError, ClientError):
            return False
        return True

    until(created)
    assert urls[0].startswith(f"https://127.0.0.1:{cluster.client_port}/")
    sqs.send_message(QueueUrl=urls[0], MessageBody="x")
    (message,) = sqs.receive_message(QueueUrl=urls[0], WaitTimeSeconds=5)["Messages"]
    assert message["Body"] == "x"


def test_strangers_are_refused_by_nodes_and_managers(cluster: Cluster, files: Path) -> None:
    """Without a certificate nobody gets a connection; with one, but without the secret, nobody gets a link."""
    test_messages_go_over_tls_all_the_way(cluster)
    ca = str(files / "ca.pem")

    async def ask(port: int, scheme: str, tls: ssl.SSLContext | bool, secret: str = "") -> int:
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        url = f"{scheme}://127.0.0.1:{port}/link"
        async with aiohttp.ClientSession() as session, session.get(url, ssl=tls, headers=headers) as response:
            return response.status

    known = client_tls(ca, str(files / "manager.pem"), str(files / "manager.key"))
    for port in (cluster.node_port, cluster.link_port):
        for scheme, tls in (("http", True), ("https", client_tls(ca))):
            with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
                asyncio.run(ask(port, scheme, tls))
        assert asyncio.run(ask(port, "https", known)) == 401
        assert asyncio.run(ask(port, "https", known, "a-wrong-secret-of-some-length")) == 401
        # let in, and then asked for a WebSocket
        assert asyncio.run(ask(port, "https", known, (files / "secret").read_text())) == 400


def log(cluster: Cluster, files: Path, **options: Path) -> subprocess.CompletedProcess[str]:
    tls = [part for name, file in options.items() for part in (f"--tls-{name}", str(file))]
    where = ["--manager", f"127.0.0.1:{cluster.link_port}", "--secret-file", str(files / "secret"), *tls]
    command = [sys.executable, "-m", "distribution_manager", "log", "q", *where]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)


def test_the_log_is_read_over_tls(cluster: Cluster, files: Path) -> None:
    test_messages_go_over_tls_all_the_way(cluster)
    ca, cert, key = files / "ca.pem", files / "manager.pem", files / "manager.key"
    read = log(cluster, files, ca=ca, cert=cert, key=key)
    assert read.returncode == 0, read.stderr
    assert " send " in read.stdout
    for options, why in (
        ({"ca": cert, "cert": cert, "key": key}, "CERTIFICATE_VERIFY_FAILED"),
        ({"cert": cert, "key": key}, "--tls-cert needs --tls-ca"),
        ({"ca": ca, "cert": cert}, "--tls-cert goes with --tls-key"),
        ({"ca": files / "nosuch"}, "cannot be used"),
    ):
        refused = log(cluster, files, **options)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused.stderr
        assert why in refused.stderr


@pytest.mark.parametrize("signalled", [True, False], ids=["SIGHUP", "file change"])
def test_a_certificate_is_replaced_while_serving(cluster: Cluster, files: Path, signalled: bool) -> None:
    until(lambda: _accepts(cluster))
    before = cluster.shown_certificate()
    certify(files, "endpoint")
    if signalled:
        cluster.processes["manager"].send_signal(signal.SIGHUP)
    until(lambda: cluster.shown_certificate() != before)
    after = cluster.shown_certificate()

    # half a change is none
    (files / "endpoint.key").write_text("-----BEGIN PRIVATE KEY-----\n")
    cluster.processes["manager"].send_signal(signal.SIGHUP)
    until(lambda: "stays as it was" in (cluster.data / "manager.log").read_text())
    assert cluster.shown_certificate() == after
    certify(files, "endpoint")
    until(lambda: cluster.shown_certificate() != after)
    cluster.sqs().list_queues()


def _accepts(cluster: Cluster) -> bool:
    try:
        cluster.shown_certificate()
    except OSError:
        return False
    return True
