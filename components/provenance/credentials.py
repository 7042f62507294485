"""What images are signed with: a certificate and its key, the user's or self-signed ones made once.

One PEM file holds both, as web servers take them: the certificate, its issuers if there are any, and the
private key. It is STRAIGHTSHOT_CREDENTIALS or an option; without one, `straightshot/credentials.pem` in the
user's configuration folder, which is made on first use and readable for its owner only. A certificate that a
C2PA authority issued makes other people's tools show the signer as known; a self-signed one shows that the
image was not changed, and to whoever has the file that it is theirs.
"""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.durable import write_once
from components.errors import InputError, one_line

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CREDENTIALS_VARIABLE = "STRAIGHTSHOT_CREDENTIALS"
PROVENANCE_VARIABLE = "STRAIGHTSHOT_PROVENANCE"
OFF = ("0", "off", "false", "no")
OWN_FILE = Path("straightshot") / "credentials.pem"
SELF_SIGNED_NAME = "Straightshot, self-signed"
SELF_SIGNED_YEARS = 10
CURVES = {256: "es256", 384: "es384", 521: "es512"}  # bits of the curve -> C2PA's name of the algorithm
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\s*", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.+?-----END [A-Z ]*PRIVATE KEY-----\s*", re.DOTALL)


@dataclass(frozen=True)
class Credentials:
    """chain: the certificate and its issuers, PEM; key: its private key, PEM; algorithm: as C2PA names it."""

    path: Path
    chain: bytes
    key: bytes
    algorithm: str

    @cached_property
    def serial(self) -> str:
        """The certificate's serial number, decimal."""
        return str(_leaf(self.chain).serial_number)


def provenance_is_on() -> bool:
    """Whether the environment leaves it on, as it is by default."""
    return os.environ.get(PROVENANCE_VARIABLE, "").lower() not in OFF


def own_path() -> Path:
    """The file that is used where none is named."""
    if named := os.environ.get(CREDENTIALS_VARIABLE):
        return Path(named).expanduser()
    folder = os.environ.get("XDG_CONFIG_HOME")
    return (Path(folder) if folder else Path("~/.config").expanduser()) / OWN_FILE


def find_credentials(path: Path | None = None) -> Credentials:
    """Those in `path`, else in the user's own file, which is made where there is none.

    Raises InputError for a file without a certificate and its key.
    """
    named = path or (own_path() if os.environ.get(CREDENTIALS_VARIABLE) else None)
    chosen = named or own_path()
    if named is None and not chosen.exists():
        make_self_signed(chosen)
    return read_credentials(chosen)


def read_credentials(path: Path) -> Credentials:
    """The credentials in a PEM file. Raises InputError, one line."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"credentials {path} cannot be read ({error.strerror})") from error
    chain, key = b"".join(_CERTIFICATE.findall(content)), b"".join(_KEY.findall(content))
    if not chain or not key:
        raise InputError(f"credentials {path}: expected a PEM file with a certificate and its private key")
    try:
        private, public = load_pem_private_key(key, None), _leaf(chain).public_key()
    except (ValueError, TypeError) as error:
        raise InputError(f"credentials {path} cannot be used ({one_line(error, 100)})") from error
    if private.public_key() != public:
        raise InputError(f"credentials {path}: the first certificate is not of the private key")
    return Credentials(path, chain, key, _algorithm(private, path))


def make_self_signed(path: Path) -> None:
    """Write new self-signed credentials, readable for their owner only, unless another process was first."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    content = _self_signed(key) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_once(path, content, mode=0o600)
    except OSError as error:
        raise InputError(
            f"no credentials to sign images with can be made in {path.parent} ({error.strerror}): name a file"
            f" with {CREDENTIALS_VARIABLE}, or set {PROVENANCE_VARIABLE}=off"
        ) from error


def _self_signed(key: "EllipticCurvePrivateKey") -> bytes:
    """A certificate that C2PA's profile of certificates accepts, PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    texts = ((NameOID.ORGANIZATION_NAME, "Straightshot"), (NameOID.COMMON_NAME, SELF_SIGNED_NAME))
    name = x509.Name([x509.NameAttribute(kind, text) for kind, text in texts])
    now, public = datetime.now(UTC), key.public_key()
    names = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign")
    unused = dict.fromkeys((*names, "crl_sign", "encipher_only", "decipher_only"), False)
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks differ
        .not_valid_after(now + timedelta(days=365 * SELF_SIGNED_YEARS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **unused), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _leaf(chain: bytes) -> Any:
    from cryptography.x509 import load_pem_x509_certificate

    return load_pem_x509_certificate(chain)


def _algorithm(key: Any, path: Path) -> str:
    """C2PA's name of what a key signs with. Raises InputError for a key that C2PA does not know."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size in CURVES:
        return CURVES[key.curve.key_size]
    raise InputError(f"credentials {path}: C2PA takes keys of ECDSA (P-256, P-384, P-521), Ed25519 or RSA")
