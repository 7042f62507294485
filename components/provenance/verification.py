"""Whether an image is one of ours, and as it was made."""

import io
import json
from dataclasses import dataclass
from typing import Any, Literal

from components.errors import one_line
from components.provenance.credentials import Credentials
from components.provenance.png import BY_A_MODEL, EDITED_BY_A_MODEL, GENERATOR

TRUSTED, INVALID = "Trusted", "Invalid"  # of C2PA's validation states; the third is Valid
UNKNOWN_SIGNER = "signingCredential.untrusted"


@dataclass(frozen=True)
class Provenance:
    """What an image's manifest says. verdict:

    ours: Straightshot made it, the credentials at hand signed it, and no byte was changed since;
    foreign: unchanged since somebody else signed it; changed: it is not as it was signed; unsigned: it has no
    manifest. detail: in words.
    """

    verdict: Literal["ours", "foreign", "changed", "unsigned"]
    detail: str


def examine(image: bytes, media_type: str, credentials: Credentials | None) -> Provenance:
    """Read and validate the manifest in an image's bytes. credentials: whose signature is ours."""
    from c2pa import C2paError, Context, Reader

    settings: dict[str, Any] = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    if credentials is not None:
        settings["trust"] = {"user_anchors": credentials.chain.decode()}
    try:
        reader = Reader.try_create(media_type, io.BytesIO(image), context=Context.from_dict(settings))
        if reader is None:
            return _unsigned(image)
        with reader:
            report = json.loads(reader.json())
    except C2paError as error:  # of a manifest that was changed itself
        return Provenance("changed", f"its manifest cannot be read ({one_line(error, 100)})")
    state, manifest = report.get("validation_state"), report["manifests"].get(report.get("active_manifest"))
    if state == INVALID or manifest is None:
        codes = [status["code"] for status in report.get("validation_status", [])]
        found = ", ".join(code for code in codes if code != UNKNOWN_SIGNER)
        return Provenance("changed", f"it is not as it was signed ({found})")
    signature = manifest.get("signature_info", {})
    maker = _maker(manifest)
    is_known = credentials is not None and state == TRUSTED and maker.startswith(GENERATOR)
    if credentials is not None and is_known and signature.get("cert_serial_number") == credentials.serial:
        return Provenance("ours", f"made by {maker}, signed with {credentials.path}, and unchanged since")
    signer = signature.get("common_name") or signature.get("issuer") or "somebody"
    return Provenance("foreign", f"made by {maker}, signed by '{signer}', and unchanged since")


def _maker(manifest: dict[str, Any]) -> str:
    """Program and model, such as "straightshot 0.1.0 with model straightshot/3"."""
    programs = manifest.get("claim_generator_info") or [{}]
    program = " ".join(
        filter(None, (programs[0].get("name", "an unknown program"), programs[0].get("version")))
    )
    for assertion in manifest.get("assertions", []):
        for action in assertion.get("data", {}).get("actions", []):
            agent = action.get("softwareAgent")
            if action.get("digitalSourceType") in BY_A_MODEL and isinstance(agent, dict):
                is_edited = action["digitalSourceType"] == EDITED_BY_A_MODEL
                return f"{program} with model {agent.get('name')}" + " from another image" * is_edited
    return str(program)


def _unsigned(image: bytes) -> Provenance:
    by_a_model = any(source_type.encode() in image for source_type in BY_A_MODEL)
    says_so = ", though its metadata say that a model made it" if by_a_model else ""
    return Provenance("unsigned", f"it has no manifest: not one of ours, or that was removed{says_so}")
