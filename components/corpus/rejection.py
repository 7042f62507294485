"""A rule's result: None, or the reason why a record does not go on."""

from dataclasses import dataclass

from components.corpus.schemas import Reason


@dataclass(frozen=True)
class Rejection:
    """Why a record was rejected: one reason of the closed list, and the detail in one short line."""

    reason: Reason
    detail: str
