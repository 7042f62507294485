"""Pixels as a PNG that says a model made them.

With credentials it holds IPTC's digital source type as XMP, which image libraries and search engines read,
and a C2PA manifest over all its bytes, so that a changed one is found. The manifest holds a time and a fresh
identifier: two files of one image differ in it, their pixels and texts do not. Of an edited image it names
the file that was edited by its hash, and keeps that file's own manifest.
"""

import importlib.metadata
import io
import threading
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import InputError, one_line
from components.provenance.credentials import Credentials, find_credentials, provenance_is_on

if TYPE_CHECKING:
    from PIL import Image

PNG = "image/png"
GENERATOR = "straightshot"
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
MADE_BY_A_MODEL = f"{SOURCE_TYPES}trainedAlgorithmicMedia"
EDITED_BY_A_MODEL = f"{SOURCE_TYPES}compositeWithTrainedAlgorithmicMedia"
BY_A_MODEL = (MADE_BY_A_MODEL, EDITED_BY_A_MODEL)
XMP_KEY = "XML:com.adobe.xmp"  # of a PNG's text chunk (XMP specification, part 3)
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' Iptc4xmpExt:DigitalSourceType="{source_type}"/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)
PARENT = {"title": "the edited image", "relationship": "parentOf"}
# A thumbnail of a small image, and reading each file again, take a hundred times as long as the signature.
SETTINGS = {"verify": {"verify_after_sign": False}, "builder": {"thumbnail": {"enabled": False}}}


class PngWriter:
    """Encodes images, from any thread. credentials: to sign with; None: the PNG says nothing of a model."""

    def __init__(self, credentials: Credentials | None) -> None:
        self.credentials = credentials
        self._lock = threading.Lock()  # a signer is used by one thread at a time

    def encode(
        self, image: "Image.Image", texts: Mapping[str, str], model: str, *, edited: bytes | None = None
    ) -> bytes:
        """The file's bytes. texts: its text chunks. model: what made it, for the manifest.

        edited: the file (PNG, JPEG or WebP) of which the model made it, where there is one. Raises InputError
        where the credentials do not sign, or the edited file's manifest is broken.
        """
        from PIL.PngImagePlugin import PngInfo

        info, file = PngInfo(), io.BytesIO()
        for key, text in texts.items():
            info.add_itxt(key, text)
        if self.credentials is not None:
            info.add_itxt(XMP_KEY, XMP.format(source_type=_source_type(edited)))
        image.save(file, "PNG", pnginfo=info)
        return file.getvalue() if self.credentials is None else self._signed(file.getvalue(), model, edited)

    def _signed(self, png: bytes, model: str, edited: bytes | None) -> bytes:
        from c2pa import Builder, C2paError

        signed = io.BytesIO()
        with self._lock:
            signer, context = self._signer
            try:
                with Builder(_manifest(model, edited), context) as builder:
                    if edited is not None:
                        _add_parent(builder, edited)
                    builder.sign(signer, PNG, io.BytesIO(png), signed)
            except C2paError as error:
                raise self._refused(error) from error
        return signed.getvalue()

    @cached_property
    def _signer(self) -> tuple[Any, Any]:
        """C2PA's signer and settings; made once, as that takes longer than a signature."""
        from c2pa import C2paError, C2paSignerInfo, Context, Signer

        assert self.credentials is not None
        own = self.credentials
        try:
            signer = Signer.from_info(C2paSignerInfo(own.algorithm, own.chain, own.key, None))
            return signer, Context.from_dict(SETTINGS)
        except C2paError as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> InputError:
        path = self.credentials.path if self.credentials else None
        return InputError(f"credentials {path} do not sign an image ({one_line(error, 150)})")


def png_writer(provenance: bool | None = None, credentials: Path | None = None) -> PngWriter:
    """Signs with `credentials`, by default the user's; provenance: None: unless the environment says off."""
    is_on = provenance_is_on() if provenance is None else provenance
    return PngWriter(find_credentials(credentials) if is_on else None)


def _manifest(model: str, edited: bytes | None) -> dict[str, Any]:
    action = {
        "action": "c2pa.created" if edited is None else "c2pa.edited",
        "digitalSourceType": _source_type(edited),
        "softwareAgent": {"name": model},
    }
    actions = {"label": "c2pa.actions", "data": {"actions": [action]}}
    return {"claim_generator_info": [_generator()], "format": PNG, "assertions": [actions]}


def _add_parent(builder: Any, image: bytes) -> None:
    """Say that an image was opened to be edited. Raises InputError where its own manifest is broken."""
    from c2pa import C2paBuilderIntent, C2paError

    builder.set_intent(C2paBuilderIntent.EDIT)
    try:
        builder.add_ingredient(PARENT, _media_type(image), io.BytesIO(image))
    except C2paError as error:
        raise InputError(
            f"the edited image's own C2PA manifest cannot be read ({one_line(error, 100)}); save it again"
            " without one, or edit it with --no-provenance"
        ) from error


def _source_type(edited: bytes | None) -> str:
    return MADE_BY_A_MODEL if edited is None else EDITED_BY_A_MODEL


def _media_type(image: bytes) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(image)) as opened:
        return str(opened.get_format_mimetype())


@cache
def _generator() -> dict[str, str]:
    """This program; without a version where only its code is, in a served package.

    Looked up once: it takes half as long as a signature.
    """
    try:
        return {"name": GENERATOR, "version": importlib.metadata.version(GENERATOR)}
    except importlib.metadata.PackageNotFoundError:
        return {"name": GENERATOR}
