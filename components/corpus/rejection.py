"""A rule's answer: nothing, or the reason why a record does not go on. Every rule of the filter gives one."""

from dataclasses import dataclass

from components.corpus.schemas import Reason


@dataclass(frozen=True)
class Rejection:
    """Why a record was refused: one reason of the closed list, and what exactly was seen (one short line)."""

    reason: Reason
    detail: str
