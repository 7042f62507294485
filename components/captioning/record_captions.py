"""A record's captions: asked for, cleaned, scored by the judge, and usable or not; asked for again if not.

One caption of every kind, or none: a record with one that fails a gate is captioned anew, all kinds of it,
with other seeds, as often as the gates allow; then it has a rejection.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.captioning.cleaning import check_caption, clean_caption
from components.captioning.kinds import ALT_COLUMN, CaptionKind
from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason
from components.judge.judge import Judge

Floats = npt.NDArray[np.float32]


class WritesCaptions(Protocol):
    """A captioner: the transformers one or a server's.

    keyed_by: the column of what an image's draws depend on. asked: requests so far, where it sends any.
    """

    keyed_by: str
    asked: int

    def caption(
        self,
        images: Sequence[Image.Image],
        kind: CaptionKind,
        keys: Sequence[str],
        *,
        prompts: Sequence[str] | None = None,
        attempt: int = 0,
    ) -> Sequence[str | Rejection]: ...


@dataclass(frozen=True)
class CaptionGates:
    """Which captions can be used, beside those that `check_caption` refuses.

    score: least cosine of image and each caption. agreement: least cosine of any two captions of an image.
    None: any. retries: how often a record that fails is captioned again.
    """

    score: float | None = None
    agreement: float | None = None
    retries: int = 0


@dataclass(frozen=True)
class RecordCaptions:
    """A record's captions and the judge's scores of them, by column.

    rejection: why they cannot be used. retried: why the first ones could not, where there are others.
    """

    captions: Mapping[str, str]
    scores: Mapping[str, float]
    rejection: Rejection | None
    retried: Rejection | None = None


@dataclass(frozen=True)
class RecordCaptioner:
    """Captions records with a captioner and a judge."""

    captioner: WritesCaptions
    judge: Judge
    kinds: tuple[CaptionKind, ...]
    gates: CaptionGates = CaptionGates()

    def caption(
        self, records: Sequence[Mapping[str, Any]], images: Sequence[Image.Image], features: Floats
    ) -> list[RecordCaptions]:
        """The captions of each record. features: of the images, the judge's unit vectors, (N, D)."""
        results = self._attempt(records, images, features, 0)
        for attempt in range(1, self.gates.retries + 1):
            rows = [row for row, result in enumerate(results) if _may_be_retried(result.rejection)]
            if not rows:
                break
            failed = [records[row] for row in rows], [images[row] for row in rows], features[rows]
            for row, result in zip(rows, self._attempt(*failed, attempt), strict=True):
                first = results[row].retried or results[row].rejection
                results[row] = replace(result, retried=first)
        return results

    def _attempt(
        self,
        records: Sequence[Mapping[str, Any]],
        images: Sequence[Image.Image],
        features: Floats,
        attempt: int,
    ) -> list[RecordCaptions]:
        keys = [record[self.captioner.keyed_by] for record in records]
        refused: list[Rejection | None] = [None] * len(records)
        texts: dict[str, list[str]] = {}
        scores: dict[str, list[float]] = {}
        embedded: list[Floats] = []
        for kind in self.kinds:
            prompts = [kind.prompt_for(record[ALT_COLUMN]) for record in records]
            written = self.captioner.caption(images, kind, keys, prompts=prompts, attempt=attempt)
            refused = [
                before or (text if isinstance(text, Rejection) else None)
                for before, text in zip(refused, written, strict=True)
            ]
            captions = ["" if isinstance(text, Rejection) else clean_caption(text) for text in written]
            embedded.append(self.judge.text_features(captions))
            texts[kind.column] = captions
            scores[kind.score_column] = np.einsum("nd,nd->n", features, embedded[-1]).tolist()
        agreement = _least_cosines(embedded)
        return [
            self._result(
                {column: of[row] for column, of in texts.items()},
                {column: of[row] for column, of in scores.items()},
                float(agreement[row]),
                refused[row],
            )
            for row in range(len(records))
        ]

    def _result(
        self,
        captions: Mapping[str, str],
        scores: Mapping[str, float],
        agreement: float,
        refused: Rejection | None,
    ) -> RecordCaptions:
        rejections = [refused, *(check_caption(captions[kind.column], kind) for kind in self.kinds)]
        lowest = min(scores.values())
        if self.gates.score is not None and lowest < self.gates.score:
            detail = f"cosine {lowest:.3f}, the threshold is {self.gates.score:g}"
            rejections.append(Rejection(Reason.CAPTION_SCORE, detail))
        if self.gates.agreement is not None and agreement < self.gates.agreement:
            detail = f"cosine of two captions {agreement:.3f}, the threshold is {self.gates.agreement:g}"
            rejections.append(Rejection(Reason.CAPTION_DISAGREEMENT, detail))
        return RecordCaptions(captions, scores, next((r for r in rejections if r is not None), None))


def _least_cosines(embedded: Sequence[Floats]) -> Floats:
    """The least cosine of any two of each row's vectors, (N,); 1 where there is but one."""
    cosines = [np.einsum("nd,nd->n", one, other) for one, other in combinations(embedded, 2)]
    return np.min(cosines, axis=0) if cosines else np.ones(len(embedded[0]), np.float32)


def _may_be_retried(rejection: Rejection | None) -> bool:
    """Another seed helps a caption, not a request that the server does not take."""
    return rejection is not None and rejection.reason is not Reason.ERRORED
