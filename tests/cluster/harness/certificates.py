"""The cluster's certificates and keys, made with openssl."""

from __future__ import annotations

from pathlib import Path

from harness.commands import run

DAYS = "30"


def make_authority(folder: Path) -> None:
    """`ca.crt` and `ca.key`."""
    folder.mkdir(parents=True, exist_ok=True)
    run(
        *(
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            DAYS,
        ),
        *("-keyout", folder / "ca.key", "-out", folder / "ca.crt", "-subj", "/CN=sternpost-test-cluster"),
        *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )


def make_certificate(folder: Path, name: str, subject: str, *, alternatives: list[str] | None = None) -> None:
    """`NAME.crt` and `NAME.key`, signed by the authority in the same folder.

    With `alternatives` (`IP:…`, `DNS:…`) it is a server's, otherwise a client's.
    """
    run(
        *("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr", "-subj", subject),
    )
    extensions = [
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,digitalSignature",
        f"extendedKeyUsage={'serverAuth' if alternatives else 'clientAuth'}",
        "subjectKeyIdentifier=hash",
        "authorityKeyIdentifier=keyid",
        *([f"subjectAltName={','.join(alternatives)}"] if alternatives else []),
    ]
    (folder / f"{name}.ext").write_text("\n".join(extensions) + "\n")
    run(
        *("openssl", "x509", "-req", "-in", folder / f"{name}.csr", "-out", folder / f"{name}.crt", "-days", DAYS),
        *("-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial"),
        *("-extfile", folder / f"{name}.ext"),
    )


def make_key(file: Path) -> None:
    """An RSA key, with which service account tokens are signed."""
    run("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", file)
