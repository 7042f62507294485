"""Generated images say, signed, that a model made them; a changed byte is found."""

import io
import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from c2pa import Reader
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

from components.errors import InputError
from components.provenance.credentials import (
    CREDENTIALS_VARIABLE,
    PROVENANCE_VARIABLE,
    find_credentials,
    make_self_signed,
    own_path,
    read_credentials,
)
from components.provenance.png import EDITED_BY_A_MODEL, MADE_BY_A_MODEL, PngWriter, png_writer
from components.provenance.verification import Provenance, examine

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
TEXTS = {"prompt": "a red circle, größer", "seed": "7"}
DIGITAL_SOURCE_TYPE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
MANIFEST_CHUNK = b"caBX"


@pytest.fixture
def writer(tmp_path) -> PngWriter:
    make_self_signed(tmp_path / "own" / "credentials.pem")
    return png_writer(True, tmp_path / "own" / "credentials.pem")


def encoded(writer: PngWriter) -> bytes:
    return writer.encode(Image.fromarray(PIXELS), TEXTS, "straightshot/3")


def examined(png: bytes, writer: PngWriter) -> Provenance:
    return examine(png, "image/png", writer.credentials)


def test_an_image_says_what_made_it_and_keeps_its_pixels_and_texts(writer):
    first, second = encoded(writer), encoded(writer)
    for png in (first, second):
        found = examined(png, writer)
        assert found.verdict == "ours"
        assert "made by straightshot " in found.detail and "with model straightshot/3" in found.detail
        with Image.open(io.BytesIO(png)) as image:
            assert np.array_equal(np.asarray(image), PIXELS)
            assert TEXTS.items() <= image.text.items()
            ((description,),) = ElementTree.fromstring(image.info["xmp"])
            assert description.attrib[DIGITAL_SOURCE_TYPE] == MADE_BY_A_MODEL
    assert first != second  # each has its time


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "signed"])
def test_an_edited_image_says_so_and_names_what_it_was_made_of(writer, file_format):
    source = encoded(writer)
    if file_format != "signed":
        file = io.BytesIO()
        Image.fromarray(PIXELS).save(file, file_format)
        source = file.getvalue()
    png = writer.encode(Image.fromarray(255 - PIXELS), TEXTS, "straightshot/3", edited=source)
    found = examined(png, writer)
    assert found.verdict == "ours"
    assert "with model straightshot/3 from another image, signed" in found.detail
    with Image.open(io.BytesIO(png)) as image:
        assert np.array_equal(np.asarray(image), 255 - PIXELS)
        ((description,),) = ElementTree.fromstring(image.info["xmp"])
        assert description.attrib[DIGITAL_SOURCE_TYPE] == EDITED_BY_A_MODEL
    with Reader("image/png", io.BytesIO(png)) as reader:
        report = json.loads(reader.json())
    (parent,) = report["manifests"][report["active_manifest"]]["ingredients"]
    assert parent["relationship"] == "parentOf"
    assert ("active_manifest" in parent) == (file_format == "signed")  # its own history stays


def test_an_image_whose_own_manifest_is_broken_is_no_parent(writer):
    source = bytearray(encoded(writer))
    at = source.index(MANIFEST_CHUNK)
    end = at + 4 + int.from_bytes(source[at - 4 : at], "big")
    source[at + 150 : at + 400] = bytes(250)
    source[end : end + 4] = zlib.crc32(source[at:end]).to_bytes(4, "big")
    with pytest.raises(InputError, match=r"manifest cannot be read .*save it again without one"):
        writer.encode(Image.fromarray(PIXELS), TEXTS, "straightshot/3", edited=bytes(source))


def test_every_changed_byte_of_the_image_is_found(writer):
    png = encoded(writer)
    at = png.index(MANIFEST_CHUNK)
    manifest = range(at - 4, at + 8 + int.from_bytes(png[at - 4 : at], "big"))
    others = [position for position in range(len(png)) if position not in manifest]
    assert len(others) > 500
    for position in others:
        damaged = bytearray(png)
        damaged[position] ^= 1
        assert examined(bytes(damaged), writer).verdict == "changed", position
    assert examined(png + b"more", writer).verdict == "changed"


def test_what_others_made_or_made_again_is_not_ours(writer, tmp_path):
    make_self_signed(tmp_path / "other.pem")
    foreign = examined(encoded(png_writer(True, tmp_path / "other.pem")), writer)
    assert foreign.verdict == "foreign"
    assert examine(encoded(writer), "image/png", None).verdict == "foreign"
    with Image.open(io.BytesIO(encoded(writer))) as image:
        again = io.BytesIO()
        image.save(again, "PNG")
    assert examined(again.getvalue(), writer).verdict == "unsigned"


def test_without_provenance_an_image_says_nothing(monkeypatch):
    monkeypatch.setenv(PROVENANCE_VARIABLE, "off")
    png = encoded(png_writer())
    assert MADE_BY_A_MODEL.encode() not in png and MANIFEST_CHUNK not in png
    assert examine(png, "image/png", None).verdict == "unsigned"
    monkeypatch.delenv(PROVENANCE_VARIABLE)
    assert MADE_BY_A_MODEL.encode() in encoded(png_writer())


def test_own_credentials_are_made_once_and_for_their_owner_only(monkeypatch, tmp_path):
    monkeypatch.delenv(CREDENTIALS_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: find_credentials(), range(8)))
    assert len({credentials.serial for credentials in found}) == 1
    assert own_path().stat().st_mode & 0o777 == 0o600
    assert [path.name for path in own_path().parent.iterdir()] == ["credentials.pem"]


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["ecdsa", "ed25519", "rsa"],
)
def test_a_user_s_certificate_signs(key, tmp_path, monkeypatch):
    path = issued(key, tmp_path / "issued.pem")
    monkeypatch.setenv(CREDENTIALS_VARIABLE, str(path))
    writer = png_writer()
    found = examined(encoded(writer), writer)
    assert found.verdict == "ours", found
    assert str(path) in found.detail


def issued(key: object, path: Path) -> Path:
    """A PEM file: a certificate that an authority of its own issued, that authority's, and the key."""
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = certificate(authority.public_key(), "An authority", authority, None)
    leaf = certificate(key.public_key(), "A studio", authority, issuer)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = [one.public_bytes(serialization.Encoding.PEM) for one in (leaf, issuer)]
    path.write_bytes(b"".join([*chain, private]))
    return path


def certificate(public: object, name: str, signer: object, issuer: x509.Certificate | None):
    texts = ((NameOID.ORGANIZATION_NAME, name), (NameOID.COMMON_NAME, name))
    subject = x509.Name([x509.NameAttribute(kind, text) for kind, text in texts])
    now, is_authority = datetime.now(UTC), issuer is None
    usages = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    usage = x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
        **dict.fromkeys(usages, False),
    )
    builder = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer.subject if issuer else subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if not is_authority:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
    return builder.sign(signer, hashes.SHA256())


def test_credentials_that_cannot_sign_are_one_line(tmp_path):
    for name in ("one", "two"):
        make_self_signed(tmp_path / name)
    one, two = ((tmp_path / name).read_text() for name in ("one", "two"))
    cut = "-----BEGIN PRIVATE KEY-----"
    contents = {
        "expected a PEM file with a certificate": one.partition(cut)[0],
        "not of the private key": one.partition(cut)[0] + cut + two.partition(cut)[2],
        "cannot be used": one.replace("MI", "!!"),
    }
    for message, content in contents.items():
        (tmp_path / "bad").write_text(content)
        with pytest.raises(InputError, match=message):
            read_credentials(tmp_path / "bad")
    with pytest.raises(InputError, match="cannot be read"):
        read_credentials(tmp_path / "none")
