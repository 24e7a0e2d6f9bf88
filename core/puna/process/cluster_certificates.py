"""Makes the certificates of a cluster: an authority, and a certificate for cores and one for nodes."""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from puna import atomic_files
from puna.process.cluster_tls import AUTHORITY, CERTIFICATE, CORE_NAME, KEY, NODE_NAME

DAYS: Final = 3650
"""How long the authority and its certificates are valid."""
KINDS: Final = {
    "core": (CORE_NAME, ExtendedKeyUsageOID.CLIENT_AUTH),
    "node": (NODE_NAME, ExtendedKeyUsageOID.SERVER_AUTH),
}
"""Name and purpose of each kind of certificate."""


def make(folder: Path) -> list[Path]:
    """Make an authority in `folder`, and below it a folder for cores and one for nodes; return these two.

    Raises FileExistsError if the folder has an authority, since a new one would shut out every node of the old one.
    """
    if (folder / AUTHORITY).exists():
        raise FileExistsError(17, "the folder has the certificates of a cluster already", str(folder / AUTHORITY))
    issued, authority_key = _issued()
    for kind, files in issued.items():
        _write(folder / kind, files)
    # The authority's certificate comes last: the folder has a cluster's certificates once it is there.
    _write(folder, {"ca.key": authority_key, AUTHORITY: issued["core"][AUTHORITY]})
    return [folder / kind for kind in issued]


def issue() -> dict[str, dict[str, str]]:
    """Make an authority and certificates in memory; return the texts of the files of each kind of folder by name.

    The authority's key is forgotten, so that it signs nothing else.
    """
    issued, _ = _issued()
    return {kind: {name: _pem(each).decode() for name, each in files.items()} for kind, files in issued.items()}


_File: TypeAlias = x509.Certificate | ec.EllipticCurvePrivateKey


def _issued() -> tuple[dict[str, dict[str, _File]], ec.EllipticCurvePrivateKey]:
    """Return the files of each kind of folder, and the key of their authority."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _signed("Puna cluster", authority_key.public_key(), "Puna cluster", authority_key, None)
    issued: dict[str, dict[str, _File]] = {}
    for kind, (name, purpose) in KINDS.items():
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _signed(name, key.public_key(), "Puna cluster", authority_key, purpose)
        issued[kind] = {KEY: key, CERTIFICATE: certificate, AUTHORITY: authority}
    return issued, authority_key


def _signed(
    name: str,
    key: ec.EllipticCurvePublicKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    purpose: x509.ObjectIdentifier | None,
) -> x509.Certificate:
    """Return a certificate; without a purpose it is that of an authority."""
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # The clocks of machines differ a little.
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=purpose is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=purpose is not None,
                key_cert_sign=purpose is None,
                crl_sign=purpose is None,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if purpose is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _write(folder: Path, files: Mapping[str, _File]) -> None:
    """Write files in this order. They replace those of a run that did not finish."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in files.items():
        atomic_files.write(folder / name, _pem(content), 0o644 if isinstance(content, x509.Certificate) else 0o600)


def _pem(content: _File) -> bytes:
    pem = serialization.Encoding.PEM
    if isinstance(content, x509.Certificate):
        return content.public_bytes(pem)
    return content.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
