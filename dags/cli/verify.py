"""`straightshot verify [STAGE|PATH]`: hash every file and name the wrong ones; is an image ours?"""

from collections.abc import Callable
from pathlib import Path

from pipelines.execution.progress import Progress
from pipelines.store.home import home_path
from pipelines.store.receipts import RECEIPT
from pipelines.verify import Verification, targets, verify

IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


def verify_outputs(home: Path | None, target: str | None, say: Callable[[str], object]) -> bool:
    """Check what `target` names; whether all is well. `say` gets a line for each output and each wrong file.

    target: a stage, an output's folder or a file in one; None for every output under HOME. An image that lies
    in no output is compared with its own manifest.
    """
    if target is not None and is_image_of_its_own(Path(target)):
        return verify_image(Path(target), say)
    folder = home_path(home)
    chosen = targets(folder, target)
    progress = Progress()
    with progress.task("verify", max(1, sum(output.bytes() for output in chosen)), "bytes") as advance:
        verifications = [verify(output, advance) for output in chosen]
    for verification in verifications:
        say(_line(verification))
        for fault in verification.faults:
            say(f"  {fault.path}: {fault.what}")
    wrong = [verification for verification in verifications if verification.faults]
    if wrong:
        say(
            f"{len(wrong)} of {len(verifications)} outputs are not as they were made;"
            f" `straightshot run --home {folder}` makes again what it needs of them"
        )
    return not wrong


def is_image_of_its_own(path: Path) -> bool:
    """Whether it is an image file that no receipt lists, by its name."""
    is_listed = any((folder / RECEIPT).is_file() for folder in path.expanduser().absolute().parents)
    return path.suffix.lower() in IMAGE_TYPES and path.is_file() and not is_listed


def verify_image(path: Path, say: Callable[[str], object]) -> bool:
    """Whether the image is one of ours, and as it was made; `say` gets the one line."""
    from components.provenance.credentials import own_path, read_credentials
    from components.provenance.verification import examine

    own = own_path()
    found = examine(
        path.read_bytes(), IMAGE_TYPES[path.suffix.lower()], read_credentials(own) if own.is_file() else None
    )
    say(f"{path}: {'ok' if found.verdict == 'ours' else found.verdict.upper()}: {found.detail}")
    return found.verdict == "ours"


def _line(verification: Verification) -> str:
    name = f"{verification.out.parent.name}/{verification.out.name}"
    amount = f"{verification.files:,} files, {verification.bytes / 1e6:,.1f} MB"
    return f"{name}: {'WRONG' if verification.faults else 'ok'} ({amount})"
