"""`straightshot verify [STAGE|PATH]`: hash every file and name the wrong ones."""

from collections.abc import Callable
from pathlib import Path

from pipelines.execution.progress import Progress
from pipelines.store.home import home_path
from pipelines.verify import Verification, targets, verify


def verify_outputs(home: Path | None, target: str | None, say: Callable[[str], object]) -> bool:
    """Check what `target` names; whether all is well. `say` gets a line for each output and each wrong file.

    target: a stage, an output's folder or a file in one; None for every output under HOME.
    """
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


def _line(verification: Verification) -> str:
    name = f"{verification.out.parent.name}/{verification.out.name}"
    amount = f"{verification.files:,} files, {verification.bytes / 1e6:,.1f} MB"
    return f"{name}: {'WRONG' if verification.faults else 'ok'} ({amount})"
