"""Settings: what is wrong is named, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadow_nodes.config import ConfigError, NodeSettings, parse_arguments

GOOD = ["--node", "n1", "--region", "us-east-1", "--cluster", "c", "--data", "/data"]


def test_defaults_and_given_values() -> None:
    settings = parse_arguments([*GOOD, "--listen", "[::1]:7", "--log-retained-bytes", "2000000"])
    assert (settings.node, settings.data, str(settings.listen)) == ("n1", Path("/data"), "[::1]:7")
    assert settings.log_retained_bytes == 2_000_000
    assert settings.read_secret() == ""
    assert settings.server_tls() is None
    assert settings.client_tls() is None


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        (GOOD[:2], "region"),
        ([*GOOD, "--join", "manager"], "join"),
        ([*GOOD, "--join", "manager:9424", "--listen", "0.0.0.0:7600"], "advertise"),
        ([*GOOD, "--advertise", "0.0.0.0:7600"], "advertise"),
        ([*GOOD, "--dns-server", "dns.example.org"], "dns-server"),
        (GOOD[:-2], "data"),
        ([*GOOD, "--node", "a b"], "node"),
        ([*GOOD, "--region", ""], "region"),
        ([*GOOD, "--cluster", "-"], "cluster"),
        ([*GOOD, "--listen", "7600"], "listen"),
        ([*GOOD, "--listen", "host:70000"], "listen"),
        ([*GOOD, "--log-retained-bytes", "much"], "log-retained-bytes"),
        ([*GOOD, "--log-retained-bytes", "1"], "log-retained-bytes"),
        ([*GOOD, "--copy-bytes-per-second", "1000"], "copy-bytes-per-second"),
        ([*GOOD, "--log-level", "loud"], "log-level"),
        ([*GOOD, "--tls-cert", "c.pem"], "tls-cert"),
        ([*GOOD, "--tls-client-ca", "c.pem"], "tls-client-ca"),
        ([*GOOD, "--tls-cert", "c.pem", "--tls-key", "k.pem"], "tls-ca"),
    ],
)
def test_what_is_wrong_is_named(arguments: list[str], setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_arguments(arguments)
    assert str(caught.value).startswith(f"{setting}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"short", b"\xff" * 20, "sécret sécret sécret".encode()])
def test_a_secret_that_cannot_be_used(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    settings = NodeSettings(node="n", region="r", cluster="c", data=tmp_path, secret_file=file)
    with pytest.raises(ConfigError, match=r"^secret-file: "):
        settings.read_secret()


def test_a_certificate_that_cannot_be_loaded(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    options = {"tls_cert": missing, "tls_key": missing, "tls_ca": missing}
    settings = NodeSettings(node="n", region="r", cluster="c", data=tmp_path, **options)
    with pytest.raises(ConfigError, match=r"^tls-cert: "):
        settings.server_tls()
    with pytest.raises(ConfigError, match=r"^tls-ca: "):
        settings.client_tls()
