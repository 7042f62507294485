"""The commit of an output: its receipt is written last; in a bucket, by who holds the newest fencing token.

The lock tells who works on an output. Its owner may sleep, be taken over and wake: in a bucket the receipt is
then refused by the service itself, since it goes where the owner's token was, and by that token's tag alone.
"""

from collections.abc import Callable
from pathlib import Path

from components.durable import flush
from pipelines.errors import StageBusy
from pipelines.store.local import LocalStore
from pipelines.store.locks import Owner
from pipelines.store.mirror import remote_of
from pipelines.store.receipts import CLAIM, RECEIPT, Receipt, seal, write_receipt


def claim(out: Path, owner: Owner) -> str | None:
    """Take the right to commit an output: put a fencing token where its receipt will be. Returns its tag.

    Whoever takes the output over puts the next token, so that `commit` of the one before finds its own gone.
    None in a HOME on a disk, where a successor is known by the lock alone.
    """
    if (remote := remote_of(out)) is None:
        return None
    stored = remote.read(RECEIPT)
    number = int(stored.content.split()[1]) + 1 if stored and stored.content.startswith(CLAIM) else 1
    token = CLAIM + f"{number} {owner.run_id}".encode()
    tag = remote.put(RECEIPT, token, if_match=stored.tag if stored else None)
    if tag is None:
        raise _taken_over(owner)
    return tag


def commit(
    out: Path, receipt: Receipt, claimed: str | None, owner: Owner, before_commit: Callable[[], None]
) -> Receipt:
    """Write the receipt, which completes the output. Raises StageBusy when another run claimed it since.

    The names of the files that it lists are flushed first: their parts flushed their bytes alone.
    """
    for folder in sorted({(out / file.path).parent for file in receipt.files}):
        flush(folder)
    local, remote = LocalStore(out, owner.run_id), remote_of(out)
    if remote is not None:
        sealed, content = seal(receipt)
        before_commit()
        if remote.put(RECEIPT, content, if_match=claimed) is None:
            stored = remote.read(RECEIPT)
            if stored is None or stored.content != content:  # else the answer was lost, not the receipt
                raise _taken_over(owner)
        local.write(RECEIPT, lambda path: path.write_bytes(content))
        return sealed
    return write_receipt(local, RECEIPT, receipt, before_commit=before_commit)


def _taken_over(owner: Owner) -> StageBusy:
    return StageBusy(f"{owner.work} was taken over by another run while this one slept; run again")
