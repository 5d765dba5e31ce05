"""Fresh key material of a job's ring: a certificate that all its workers show and trust, and a token. Never logged.

Each job has its own, so that what tells a stranger from a worker is a key and no address. It lives as long as the job; whoever
wants other keys removes the Secret, and a new one is made, which the sidecars read without a restart.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sternpost_operator.manifests.ring_secret import RingKeys

SERVER_NAME = "ring.sternpost.internal"
"""What a worker's sidecar expects of another one's certificate."""
LIFETIME = timedelta(days=3650)
"""Longer than any job runs: a certificate that ends in the middle would cost the ring, and protects nobody."""
CLOCKS_APART = timedelta(hours=1)


def new_ring_keys(job_uid: str, now: datetime) -> RingKeys:
    """A P-256 key, its certificate, signed by itself, and 256 bits of token."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Two certificates of one name, while they are changed, could be told apart by their keys alone.
    common_name = f"ring-{job_uid[:40]}-{secrets.token_hex(8)}"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_APART)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    shown = certificate.public_bytes(serialization.Encoding.PEM)
    return RingKeys(
        trusted=shown,
        certificate=shown,
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        tokens=secrets.token_urlsafe(32).encode() + b"\n",
    )
