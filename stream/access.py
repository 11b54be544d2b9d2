"""How processes get access to the broker: the settings, and what kafka-python and Faust want for them."""

import logging
import ssl
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from kafka.errors import SaslAuthenticationFailedError
from pydantic import AfterValidator, BaseModel, Field, SecretStr, field_validator, model_validator

from stream.contracts.addresses import bootstrap_servers
from stream.errors import ConfigurationError

PREFIX = "LIFTSTREAM_"

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
LOGIN = ("sasl_username", "sasl_password")
FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")

OPEN_TO_ALL: dict[str, str | None] = {"security_protocol": "PLAINTEXT"} | dict.fromkeys((*LOGIN, *FILES))


def _check_broker(url: str) -> str:
    bootstrap_servers(url)
    return url


class BrokerAccess(BaseModel):
    """The part of the settings that says how the broker is spoken to; names and words are those of Kafka's clients."""

    broker: Annotated[str, AfterValidator(_check_broker)] = Field(
        "kafka://127.0.0.1:9092", description="Kafka: `kafka://host:port`, several hosts with commas between."
    )
    security_protocol: Protocol = Field(
        "PLAINTEXT", description="How to speak to Kafka: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`."
    )
    sasl_mechanism: Mechanism = Field(
        "PLAIN", description="With `SASL_...`: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`."
    )
    sasl_username: str | None = Field(None, description="User (or API key) of Kafka; needed with `SASL_...`.")
    sasl_password: SecretStr | None = Field(
        None, repr=False, description="Password (or API secret) of Kafka; needed with `SASL_...`."
    )
    ssl_cafile: Path | None = Field(
        None,
        description="With `...SSL`: certificates (PEM) that the broker's is checked against; default: the system's.",
    )
    ssl_certfile: Path | None = Field(
        None, description="With `...SSL`: our own certificate (PEM), where the broker asks for one."
    )
    ssl_keyfile: Path | None = Field(
        None, description="Its private key (PEM, not encrypted), where `ssl_certfile` does not hold it."
    )

    @field_validator(*LOGIN, *FILES, mode="before")
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        """Containers are often given variables without a value."""
        return None if value == "" else value

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        """Nothing is missing, and nothing that is set would be left unused (a password sent nowhere is a mistake)."""
        protocol, given = self.security_protocol, self._given
        has_login, is_encrypted = protocol.startswith("SASL_"), protocol.endswith("SSL")
        for name in LOGIN:
            if has_login != (name in given):
                advice = f"set {PREFIX}{name.upper()}" if has_login else "set SASL_SSL, or leave it out"
                raise ConfigurationError(
                    f"security_protocol {protocol} {'needs' if has_login else 'does not use'} {name}: {advice}."
                )
        if not is_encrypted and (unused := [name for name in FILES if name in given]):
            raise ConfigurationError(
                f"security_protocol {protocol} does not use {unused[0]}: set SSL or SASL_SSL, or leave it out."
            )
        if "ssl_keyfile" in given and "ssl_certfile" not in given:
            raise ConfigurationError(f"ssl_keyfile needs ssl_certfile: set {PREFIX}SSL_CERTFILE.")
        return self

    @property
    def _given(self) -> set[str]:
        return {name for name in (*LOGIN, *FILES) if getattr(self, name) is not None}

    @property
    def bootstrap_servers(self) -> list[str]:
        """`host:port` of each broker."""
        return bootstrap_servers(self.broker)

    @cached_property
    def ssl_context(self) -> ssl.SSLContext | None:
        """None without encryption. Host names and certificates are checked. Raises ConfigurationError."""
        if not self.security_protocol.endswith("SSL"):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ssl_cafile)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"ssl_cafile {self.ssl_cafile} cannot be used: {_why(error)}.") from None
        if self.ssl_certfile is None:
            return context
        try:
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            files = " with ".join(str(file) for file in (self.ssl_certfile, self.ssl_keyfile) if file)
            raise ConfigurationError(f"ssl_certfile {files} cannot be used: {_why(error)}.") from None
        return context

    @property
    def password(self) -> str | None:
        """The password as it is sent."""
        return self.sasl_password.get_secret_value() if self.sasl_password else None

    @property
    def kafka_options(self) -> dict[str, Any]:
        """Options for kafka-python's clients."""
        options: dict[str, Any] = {
            "security_protocol": self.security_protocol,
            "ssl_context": self.ssl_context,
        }
        if self.sasl_username is not None:
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.password,
            }
        return options


class Refusals(logging.Handler):
    """Why kafka-python could not connect in a `with` block: it says so in its log, its errors say that it could not."""

    def __init__(self) -> None:
        super().__init__()
        self._errors: list[Exception] = []
        self._logger = logging.getLogger("kafka.net.manager")

    @property
    def first(self) -> str:
        """The first reason; a refused login is the reason whatever came before. Empty when none was said."""
        if not self._errors:
            return ""
        logins = [error for error in self._errors if isinstance(error, SaslAuthenticationFailedError)]
        why = _why((logins or self._errors)[0])
        # kafka-python may see the end of the connection before the broker's last words.
        return (
            f"{why}, as by a broker that refuses the login or the protocol" if "disconnected" in why else why
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging: keep the errors among what is told."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        self._errors += [error for error in arguments if isinstance(error, Exception)]

    def __enter__(self) -> Self:
        self._before = self._logger.level, self._logger.propagate
        self._logger.addHandler(self)
        self._logger.setLevel(logging.WARNING)
        self._logger.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        level, self._logger.propagate = self._before
        self._logger.setLevel(level)


def _no_password() -> str:
    raise ssl.SSLError("the key is encrypted")


def _why(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else str(*error.args[:1])
    return (text or str(error) or type(error).__name__).splitlines()[0]
