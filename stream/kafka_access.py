"""Settings of TLS and SASL for Kafka clients, read from the environment."""

from __future__ import annotations

import ssl
from typing import Any, Literal, Self

from pydantic import Field, FilePath, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class KafkaAccess(BaseSettings):
    """Access to the brokers' listener. Secrets are files, or values that are never shown."""

    model_config = SettingsConfigDict(env_prefix="HRNN_", frozen=True, extra="forbid")

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="protocol of the brokers' listener; SASL_SSL on a shared network"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="PLAIN sends the password in clear: use it over TLS only"
    )
    sasl_username: str = Field(default="", description="one user per role: only the trainer may write models")
    sasl_password: SecretStr | None = Field(default=None, description="for tests; a file is safer than a variable")
    sasl_password_file: FilePath | None = Field(
        default=None, description="file with the password, such as a mounted Secret; a final line end is ignored"
    )
    ssl_cafile: FilePath | None = Field(
        default=None, description="PEM of the brokers' certificate authority; none: the system's authorities"
    )
    ssl_certfile: FilePath | None = Field(default=None, description="PEM of the client certificate, for mutual TLS")
    ssl_keyfile: FilePath | None = Field(default=None, description="PEM of its key, without a password")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.security_protocol.startswith("SASL_"):
            if not self.sasl_username:
                raise ValueError(f"{self.security_protocol} needs HRNN_SASL_USERNAME")
            if (self.sasl_password is None) == (self.sasl_password_file is None):
                raise ValueError(
                    f"{self.security_protocol} needs HRNN_SASL_PASSWORD_FILE or HRNN_SASL_PASSWORD, not both"
                )
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("HRNN_SSL_CERTFILE and HRNN_SSL_KEYFILE need each other")
        try:
            self.access_options()
        except (OSError, UnicodeDecodeError) as error:
            named = self.sasl_password_file, self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile
            files = ", ".join(str(path) for path in named if path)
            raise ValueError(f"one of {files} can't be read: {error}") from None
        return self

    def access_options(self) -> dict[str, Any]:
        """Return the Kafka clients' options for TLS and SASL; none for plain text."""
        if self.security_protocol == "PLAINTEXT":
            return {}
        options: dict[str, Any] = {"security_protocol": self.security_protocol}
        if self.security_protocol.endswith("SSL"):
            options["ssl_context"] = self._ssl_context()
        if self.security_protocol.startswith("SASL_"):
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self._password(),
            }
        return options

    def _password(self) -> str:
        if self.sasl_password_file is not None:
            return self.sasl_password_file.read_text().rstrip("\r\n")
        return self.sasl_password.get_secret_value() if self.sasl_password else ""

    def _ssl_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ssl_cafile)
        if self.ssl_certfile and self.ssl_keyfile:
            # an empty password, so that OpenSSL does not prompt for one
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, password="")
        return context
