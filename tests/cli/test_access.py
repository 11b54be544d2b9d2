"""How the broker is spoken to: what fits together, and what clients are given."""

import ssl
from pathlib import Path

import faust
import pytest
import trustme

from stream.access import OPEN_TO_ALL
from stream.errors import ConfigurationError
from stream.intake.faust_settings import credentials
from stream.settings import Settings

LOGIN = {"security_protocol": "SASL_SSL", "sasl_username": "me", "sasl_password": "geheim"}


def test_an_open_broker_is_given_nothing() -> None:
    settings = Settings.load()
    assert settings.kafka_options == {"security_protocol": "PLAINTEXT", "ssl_context": None}
    assert credentials(settings) is None
    assert Settings.load(sasl_username="", ssl_cafile="") == settings


def test_a_login_reaches_both_clients_and_no_text() -> None:
    settings = Settings.load(**LOGIN, sasl_mechanism="SCRAM-SHA-512")
    options = settings.kafka_options
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("me", "geheim")
    assert options["ssl_context"].verify_mode == ssl.CERT_REQUIRED
    assert options["ssl_context"].check_hostname
    given = credentials(settings)
    assert isinstance(given, faust.SASLCredentials)
    assert (given.username, given.password, given.ssl_context) == ("me", "geheim", options["ssl_context"])
    assert (given.protocol.value, given.mechanism.value) == ("SASL_SSL", "SCRAM-SHA-512")
    assert "geheim" not in f"{settings!r} {settings}"


def test_a_login_without_encryption_has_no_context() -> None:
    given = credentials(Settings.load(**LOGIN | {"security_protocol": "SASL_PLAINTEXT"}))
    assert isinstance(given, faust.SASLCredentials)
    assert (given.protocol.value, given.ssl_context) == ("SASL_PLAINTEXT", None)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"security_protocol": "SASL_SSL"}, "SASL_SSL needs sasl_username: set LIFTSTREAM_SASL_USERNAME"),
        (LOGIN | {"sasl_password": ""}, "needs sasl_password"),
        (LOGIN | {"sasl_password": None}, "needs sasl_password: set LIFTSTREAM_SASL_PASSWORD"),
        (
            LOGIN | {"security_protocol": "SSL"},
            "SSL does not use sasl_username: set SASL_SSL, or leave it out",
        ),
        ({"ssl_cafile": "ca.pem"}, "PLAINTEXT does not use ssl_cafile: set SSL or SASL_SSL, or leave it out"),
        ({"security_protocol": "SSL", "ssl_keyfile": "key.pem"}, "needs ssl_certfile"),
        ({"security_protocol": "TLS"}, "must be 'PLAINTEXT', 'SSL'"),
    ],
)
def test_what_does_not_fit_together_is_told(given: dict[str, str | None], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Settings.load(**given)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    key, certificates = tmp_path / "key.pem", tmp_path / "ca.pem"
    certificates.write_text("not one")
    trustme.CA().issue_cert("host").private_key_pem.write_to_path(key)
    for given, told in (
        ({"ssl_cafile": tmp_path / "away.pem"}, r"ssl_cafile .*away\.pem cannot be used: No such file"),
        ({"ssl_cafile": certificates}, r"ssl_cafile .*ca\.pem cannot be used: "),
        ({"ssl_certfile": key}, r"ssl_certfile .*key\.pem cannot be used: "),
    ):
        settings = Settings.load(security_protocol="SSL", **given)
        with pytest.raises(ConfigurationError, match=told):
            _ = settings.ssl_context


def test_the_demo_speaks_to_its_own_broker_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in LOGIN.items():
        monkeypatch.setenv(f"LIFTSTREAM_{name.upper()}", value)
    assert Settings.load(**OPEN_TO_ALL).kafka_options["security_protocol"] == "PLAINTEXT"
