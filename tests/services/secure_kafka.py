"""A real broker that asks for a password, or for a certificate, over TLS."""

from pathlib import Path

import trustme
from confluent_kafka.admin import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from cryptography.hazmat.primitives import serialization as keys

from tests.services.kafka import KafkaServer
from tests.services.process import free_port

USER, PASSWORD = "worker", "a secret, with = and ;"

_PROPERTIES = """
listeners=PLAINTEXT://127.0.0.1:{open},CONTROLLER://127.0.0.1:{controller},LOGIN://127.0.0.1:{login},OURS://127.0.0.1:{ours}
advertised.listeners=PLAINTEXT://127.0.0.1:{open},LOGIN://127.0.0.1:{login},OURS://127.0.0.1:{ours}
controller.quorum.voters=1@127.0.0.1:{controller}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,LOGIN:SASL_SSL,OURS:SSL
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/authority.pem
listener.name.ours.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.login.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.login.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
"""


class SecureKafka(KafkaServer):
    """Beside its open listener one with SASL_SSL (PLAIN and SCRAM-SHA-512) and one with SSL in both directions.

    `authority`, `certificate`: PEM files of who signed the broker's certificate, and of a client's with its key.
    """

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.authority, self.certificate = folder / "authority.pem", folder / "client.pem"
        authority.cert_pem.write_to_path(self.authority)
        (folder / "broker.pem").write_bytes(_as_kafka_reads_it(authority.issue_cert("127.0.0.1")))
        authority.issue_cert("client.example").private_key_and_cert_chain_pem.write_to_path(self.certificate)
        ports = {name: free_port() for name in ("open", "controller", "login", "ours")}
        self.login, self.ours = (f"kafka://127.0.0.1:{ports[name]}" for name in ("login", "ours"))
        text = _PROPERTIES.format(folder=folder, user=USER, password=PASSWORD, **ports)
        super().__init__(folder, port=ports["open"], more_properties=text)

    def start(self) -> None:
        """Start, and make the user known to SCRAM too; PLAIN's is among the properties."""
        super().start()
        how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(USER, how, PASSWORD.encode())
        admin = self.admin()
        for changed in admin.alter_user_scram_credentials([change]).values():
            changed.result(30)


def _as_kafka_reads_it(certificate: trustme.LeafCert) -> bytes:
    key = keys.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    pem = key.private_bytes(keys.Encoding.PEM, keys.PrivateFormat.PKCS8, keys.NoEncryption())
    return pem + b"".join(part.bytes() for part in certificate.cert_chain_pems)
