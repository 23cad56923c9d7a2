"""Addresses as people write them."""

from __future__ import annotations

import pytest

from shadow_nodes.protocol.addresses import Address, parse_address, parse_dns_servers, parse_peer, parse_peers


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        ("[::1]:80", Address("::1", 80)),
        ("node-1.example.com:7000", Address("node-1.example.com", 7000)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == parse_peer(text) == address
    assert str(address) == text
    assert parse_peers(f"{text}, {text},") == (address, address)


@pytest.mark.parametrize("text", ["", "host", ":80", "host:", "host:x", "host:-1", "host:65536", "::1:80", "host:²"])
def test_not_an_address(text: str) -> None:
    for parse in (parse_address, parse_peer):
        with pytest.raises(ValueError, match=r"host:port|port above"):
            parse(text)


def test_a_service() -> None:
    service = parse_peer("_etcd-client._tcp.example.org")
    assert (service.is_service, service.is_connectable, service.is_wildcard) == (True, True, False)
    assert str(service) == "_etcd-client._tcp.example.org"
    with pytest.raises(ValueError, match="host:port"):
        parse_address("_etcd-client._tcp.example.org")


@pytest.mark.parametrize("text", ["_", "_etcd", "_etcd._tcp.example.org:2379", "_a b._tcp.example.org"])
def test_not_a_service(text: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a service"):
        parse_peer(text)


@pytest.mark.parametrize("text", ["0.0.0.0:1", "[::]:1", "host:0"])
def test_nobody_connects_there(text: str) -> None:
    assert not parse_address(text).is_connectable
    with pytest.raises(ValueError, match="cannot be connected to"):
        parse_peer(text)


def test_dns_servers() -> None:
    assert list(map(str, parse_dns_servers("10.0.0.2, 127.0.0.1:5353,[::1]:53,fe80::1"))) == [
        "10.0.0.2:53",
        "127.0.0.1:5353",
        "[::1]:53",
        "[fe80::1]:53",
    ]
    for wrong in ("dns.example.org", "10.0.0.2:0", "dns.example.org:53"):
        with pytest.raises(ValueError, match=r"is not"):
            parse_dns_servers(wrong)
