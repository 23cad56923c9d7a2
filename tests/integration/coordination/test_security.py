"""Mutual TLS, and passwords whose tokens expire."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from distribution_manager.coordination.etcd3_protobuf import etcd3, etcdrpc
from distribution_manager.coordination.interface import CoordinationUnavailable
from distribution_manager.core.transactions import Put, Transaction
from shadow_nodes.protocol.errors import RejectedError

if TYPE_CHECKING:
    from .conftest import Bench
else:
    Bench = Any

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(60)]

PUT = Transaction([], [Put("key", b"value", leased=True)])


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_certificates(folder: Path) -> None:
    """ca, server (for the name etcd.test) and client, signed by ca; stranger, signed by itself."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make certificates with")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for name in ("ca", "stranger"):
        openssl(
            folder, "req", "-x509", *new_key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"
        )
    (folder / "names").write_text("subjectAltName=DNS:etcd.test\n")
    for name in ("server", "client"):
        openssl(folder, "req", *new_key[:-2], "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        sign = [
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
        ]
        openssl(folder, *sign, "-extfile", "names", "-out", f"{name}.pem")


async def test_mutual_tls(bench: Bench) -> None:
    folder = bench.folder
    make_certificates(folder)
    etcd = bench.etcd(
        client_scheme="https",
        arguments=[
            f"--cert-file={folder}/server.pem",
            f"--key-file={folder}/server.key",
            f"--trusted-ca-file={folder}/ca.pem",
            "--client-cert-auth",
        ],
    )
    await etcd.start()
    tls = {
        "ca": folder / "ca.pem",
        "cert": folder / "client.pem",
        "key": folder / "client.key",
        "server_name": "etcd.test",
    }
    good = await bench.connect(etcd.endpoint, **tls)
    follower = await bench.follow(good)
    await good.transact(PUT)
    await follower.same_as(good)
    # by name: the certificate must be for the name that was asked for, though an address is dialled
    dns = await bench.dns()
    dns.a("etcd.test", "127.0.0.1")
    dns.a("other.test", "127.0.0.1")
    by_name = {**tls, "server_name": "", "nameservers": (dns.address,)}
    named = await bench.connect(f"etcd.test:{etcd.client_port}", **by_name)
    await named.transact(PUT)
    misnamed = await bench.connect(f"other.test:{etcd.client_port}", call_timeout_s=0.5, **by_name)
    with pytest.raises(CoordinationUnavailable):
        await misnamed.transact(PUT)
    wrong_settings: list[dict[str, Any]] = [
        tls | {"cert": folder / "stranger.pem", "key": folder / "stranger.key"},
        tls | {"ca": folder / "stranger.pem"},
        tls | {"server_name": "other.test"},
        {},
    ]
    for wrong in wrong_settings:
        stranger = await bench.connect(etcd.endpoint, call_timeout_s=0.5, **wrong)
        with pytest.raises(CoordinationUnavailable):
            await stranger.transact(PUT)
        await stranger.close()


def enable_passwords(port: int) -> None:
    client = etcd3.client(port=port, timeout=2)
    stub = etcdrpc.AuthStub(client.channel)
    stub.UserAdd(etcdrpc.AuthUserAddRequest(name="root", password="secret"), 2)
    stub.RoleAdd(etcdrpc.AuthRoleAddRequest(name="root"), 2)
    stub.UserGrantRole(etcdrpc.AuthUserGrantRoleRequest(user="root", role="root"), 2)
    stub.AuthEnable(etcdrpc.AuthEnableRequest(), 2)
    client.close()


async def test_passwords_and_expired_tokens(bench: Bench) -> None:
    etcd = bench.etcd(arguments=["--auth-token-ttl=1"])
    await etcd.start()
    enable_passwords(etcd.client_port)
    coordination = await bench.connect(etcd.endpoint, user="root", password="secret", session_ttl_s=6)
    follower = await bench.follow(coordination)
    await coordination.transact(PUT)
    session, errors = coordination.session, coordination.counters.errors
    idle_since_s = time.monotonic()
    await bench.until(lambda: time.monotonic() - idle_since_s > 2.5)  # every use gives a token its second again
    await coordination.transact(PUT)
    assert coordination.counters.errors == errors + 1, "one refusal, then a new token"
    # A restarted etcd knows no token at all.
    etcd.kill()
    await etcd.start()
    await coordination.transact(PUT)
    await follower.same_as(coordination)
    assert follower.snapshots == 1
    assert coordination.session == session


async def test_wrong_passwords_are_refused(bench: Bench) -> None:
    etcd = bench.etcd()
    await etcd.start()
    enable_passwords(etcd.client_port)
    for wrong in ({"user": "root", "password": "other"}, {}):
        stranger = await bench.connect(etcd.endpoint, call_timeout_s=2, **wrong)
        with pytest.raises(RejectedError):
            await stranger.transact(PUT)
        with pytest.raises(RejectedError, match="etcdserver: "):
            await stranger.get("key")
        await stranger.close()
