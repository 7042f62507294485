"""Some rejects of each reason with a small image, for the report.

reject_examples/part-00000.parquet    the schema is REJECT_EXAMPLES; beside copies lie their originals

Of each reason those with the smallest keys: a key is a hash, so this is a sample, and the same one whatever
the workers. How many a part keeps depends on how many parts there are; of many parts, only every n-th keeps
some. So what is kept stays below a few MB a reason, however large the corpus. A withdrawn record is never
among them, nor shown as an original.
"""

from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field

from components.corpus.fragments import RawRecord
from components.corpus.schemas import Reason
from components.corpus.small_images import SmallImage, small_image
from components.filtering.examine import Rejected
from pipelines.stages.data.part_records import Row

SHOWN = 6  # of each reason, on the page
OVER_ALL_PARTS = 24  # about how many of each reason are kept, of up to 24 / LEAST_IN_PART parts
LEAST_IN_PART = 2
MOST_PARTS = 256  # that keep any

NOT_DRAWN = "not opened again"  # the image of a quarantined record

Draw = Callable[[RawRecord, str], SmallImage | Rejected]  # a record of an image alone, and its key


def examples_in_part(index: int, parts: int) -> int:
    """How many rejects of a reason part `index` of so many keeps to be looked at."""
    every = -(-parts // MOST_PARTS)
    return 0 if index % every else max(LEAST_IN_PART, min(SHOWN, -(-OVER_ALL_PARTS // parts)))


@dataclass
class Candidates:
    """Of each reason, the rejects with the smallest keys among those offered, with their images' bytes."""

    most: int
    _by_reason: dict[str, list[tuple[str, bytes | None]]] = field(default_factory=dict)

    def offer(self, reason: str, key: str, image: bytes | None) -> None:
        """Take it in if it is among the smallest; a withdrawn record never is."""
        if not self.most or reason == Reason.WITHDRAWN:
            return
        chosen = self._by_reason.setdefault(reason, [])
        if len(chosen) == self.most and key >= chosen[-1][0]:
            return
        if (at := bisect_left(chosen, key, key=_key)) == len(chosen) or chosen[at][0] != key:
            insort(chosen, (key, image), key=_key)
            del chosen[self.most :]

    def rows(self, draw: Draw) -> list[Row]:
        """Rows of REJECT_EXAMPLES, by reason and key, drawn."""
        rows = []
        for reason in sorted(self._by_reason):
            for key, image in self._by_reason[reason]:
                if reason == Reason.QUARANTINED:
                    small: SmallImage | Rejected = SmallImage(None, NOT_DRAWN)
                else:
                    small = draw(RawRecord(image, None, None), key)
                if isinstance(small, Rejected):  # drawing it ended a process
                    small = SmallImage(None, small.rejection.detail)
                rows.append(example_row(key, reason, small))
        return rows


def example_row(key: str, reason: str | None, small: SmallImage) -> Row:
    """A row of REJECT_EXAMPLES; without a reason, of what copies are copies of."""
    return {
        "key": key,
        "reason": reason,
        "sha256": small.sha256,
        "thumbnail": small.jpeg,
        "problem": small.problem,
    }


def draw(record: RawRecord, key: str) -> SmallImage:
    """The record's image, small."""
    return small_image(record.image)


def _key(candidate: tuple[str, bytes | None]) -> str:
    return candidate[0]
