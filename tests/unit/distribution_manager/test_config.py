"""Settings are checked once, and what is wrong is said in one line that begins with the setting's name."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from distribution_manager.config import ConfigError, ManagerConfig
from shadow_nodes.protocol.addresses import Address

NEEDED: dict[str, str | bool | None] = {"name": "m1", "region": "us-east-1", "etcd": "127.0.0.1:2379"}


def from_text(**values: Any) -> ManagerConfig:
    return ManagerConfig.from_text(NEEDED | values)


def test_defaults() -> None:
    config = from_text()
    assert config.endpoint == "http://127.0.0.1:9324"
    assert config.link_address == config.link_listen == Address("127.0.0.1", 9424)
    assert config.etcd == (Address("127.0.0.1", 2379),)
    assert config.public_url is None
    assert config.secret() is None
    assert config.etcd_password() is None


def test_frozen() -> None:
    config = from_text()
    with pytest.raises(FrozenInstanceError):
        config.name = "other"  # type: ignore[misc]


def test_every_setting_is_documented() -> None:
    assert all(setting.metadata["doc"] for setting in fields(ManagerConfig))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": None}, "name: is needed"),
        ({"etcd": None}, "etcd: is needed"),
        ({"etcd": ""}, "etcd: needs at least one"),
        ({"name": "a/b"}, "name: 'a/b' is not a name"),
        ({"region": ""}, "region: '' is not a name"),
        ({"listen": "here"}, "listen: 'here' is not host:port"),
        ({"listen": "127.0.0.1:9424"}, "link-listen: 127.0.0.1:9424 is taken by listen"),
        ({"listen": "10.0.0.1:9324"}, "listen: 10.0.0.1:9324 is not loopback"),
        ({"listen": "0.0.0.0:9324", "allow_anonymous": True}, "advertise-endpoint: is needed"),
        ({"link_listen": "0.0.0.0:9424"}, "advertise-link: is needed"),
        ({"advertise_link": "0.0.0.0:9424"}, "advertise-link: 0.0.0.0:9424 cannot be connected to"),
        ({"public_url": "queues.example.com"}, "public-url: 'queues.example.com' is not a URL"),
        ({"public_url": "http://h:99999"}, "public-url: 'http://h:99999' is not a URL"),
        ({"account_id": "12"}, "account-id: '12' is not 12 digits"),
        ({"lease_ttl_s": "1"}, "lease-ttl-s: 1 is not within"),
        ({"lease_ttl_s": "soon"}, "lease-ttl-s: invalid literal"),
        ({"etcd_cert": "x"}, "etcd-cert: goes with etcd-key"),
        ({"etcd_cert": "x", "etcd_key": "y"}, "etcd-ca: is needed"),
        ({"etcd_server_name": "x"}, "etcd-ca: is needed"),
        ({"arn_region": "us east"}, "arn-region: 'us east' is not a name"),
        ({"etcd_user": "x"}, "etcd-user: goes with"),
        ({"nodes": "127.0.0.1:0"}, "nodes: 127.0.0.1:0 cannot be connected to"),
        ({"tls_cert": "x"}, "tls-cert: goes with tls-key"),
        ({"secret_file": "/nowhere"}, "secret-file: there is no file /nowhere"),
        ({"link_tls_cert": "/dev/null"}, "link-tls-cert: there is no file /dev/null"),
        ({"link_tls_cert": __file__, "link_tls_key": __file__}, "link-tls-cert: goes with link-tls-key and"),
        ({"link_listen": "10.0.0.1:9424"}, "link-listen: 10.0.0.1:9424 is not loopback"),
        ({"keys_file": __file__}, "require-auth: is needed with keys-file"),
        ({"signing_regions": "x,y"}, "require-auth: is needed with keys-file"),
        ({"key_requests_per_second": "-1"}, "key-requests-per-second: must not be negative"),
        ({"heal_after_s": "-1"}, "heal-after-s: must not be negative"),
        ({"head_timeout_s": "0"}, "head-timeout-s: must be at least 1"),
        ({"request_bytes_max": "1"}, "request-bytes-max: must be at least"),
        ({"promotion_message_rate": "-1"}, "promotion-message-rate: must not be negative"),
        ({"promotion_cpu_percent": "100"}, "promotion-cpu-percent: must be at most 99"),
        ({"promotions_max": "0"}, "promotions-max: must be at least 1"),
        ({"promotion_window_s": "60", "promotion_horizon_s": "30"}, "promotion-horizon-s: 30 is less than"),
        ({"log_level": "loud"}, "log-level: 'loud' is not one of debug"),
    ],
)
def test_errors_name_the_setting(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        from_text(**values)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_anonymous_only_where_told() -> None:
    open_to_all = {"listen": "0.0.0.0:9324", "advertise_endpoint": "http://10.0.0.1:9324"}
    assert from_text(**open_to_all, require_auth=True).require_auth
    assert from_text(**open_to_all, allow_anonymous=True).endpoint == "http://10.0.0.1:9324"


def test_secrets_come_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sesame\n")
    config = from_text(secret_file=str(secret), etcd_user="root", etcd_password_file=str(secret))
    assert config.secret() == b"sesame"
    assert config.etcd_password() == "sesame"
    assert "sesame" not in repr(config)
    secret.write_text("\n")
    with pytest.raises(ConfigError, match=r"^secret-file: .* is empty"):
        config.secret()
