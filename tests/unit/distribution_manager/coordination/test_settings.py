"""Settings are checked once, by messages that name the setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool

from distribution_manager.coordination.etcd3_protobuf import etcdrpc
from distribution_manager.coordination.etcd_settings import EtcdSettings

GOOD: dict[str, Any] = {"cluster": "c1", "endpoints": ("etcd-1:2379", "[::1]:2379", "_etcd-client._tcp.example.org")}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"cluster": ""}, "cluster"),
        ({"cluster": "a/b"}, "cluster"),
        ({"endpoints": ()}, "endpoints"),
        ({"endpoints": ("etcd",)}, "endpoints"),
        ({"endpoints": ("http://etcd:2379",)}, "endpoints"),
        ({"endpoints": ("::1:2379",)}, "endpoints"),
        ({"endpoints": ("etcd:0",)}, "endpoints"),
        ({"user": "u"}, "user, password"),
        ({"cert": Path("c")}, "cert, key"),
        ({"cert": Path("c"), "key": Path("k")}, "ca"),
        ({"ca": Path("/nowhere")}, "ca: there is no file"),
        ({"session_ttl_s": 0}, "session_ttl_s"),
        ({"call_timeout_s": 0.0}, "call_timeout_s"),
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}"):
        EtcdSettings(**(GOOD | wrong))


def test_good_settings() -> None:
    settings = EtcdSettings(**GOOD, user="u", password="secret")
    assert settings.prefix == "/shadowq/c1/"
    assert "secret" not in repr(settings)


def test_etcds_schema_stays_out_of_the_shared_pool() -> None:
    assert etcdrpc.RangeRequest.DESCRIPTOR.file.name == "rpc.proto"
    for name in ("kv.proto", "auth.proto", "rpc.proto"):
        with pytest.raises(KeyError):
            descriptor_pool.Default().FindFileByName(name)
