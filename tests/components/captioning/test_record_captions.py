"""A record's captions: which gates they fail, and what is asked again with another seed."""

import numpy as np
import pytest
from PIL import Image

from components.captioning.kinds import LONG, SHORT
from components.captioning.record_captions import CaptionGates, RecordCaptioner
from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason

DOG, CAT = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)
SORRY = "I'm sorry, I can't help with that."
NO_GATES = CaptionGates()


class WordJudge:
    """A judge at the seam: texts of a dog are one direction, all others another."""

    def text_features(self, texts):
        return np.stack([DOG if "dog" in text else CAT for text in texts])


class Scripted:
    """A captioner at the seam: for each record, what it writes in its first, second, … attempt."""

    keyed_by, asked = "key", 0

    def __init__(self, **script):
        self.script, self.calls = script, []

    def caption(self, images, kind, keys, *, prompts=None, attempt=0):
        self.calls.append((attempt, kind.name, tuple(keys), tuple(prompts)))
        return [self.script[key][attempt][kind.name == "long"] for key in keys]


def caption(captioner, gates=NO_GATES):
    records = [{"key": key, "alt_text": f"alt of {key}"} for key in captioner.script]
    images = [Image.new("RGB", (4, 4))] * len(records)
    features = np.stack([DOG] * len(records))
    return RecordCaptioner(captioner, WordJudge(), (SHORT, LONG), gates).caption(records, images, features)


def reasons(results):
    return [result.rejection and result.rejection.reason for result in results]


GOOD = ("a dog", "a dog on a lawn")


def test_each_gate_has_its_reason_and_no_gate_lets_all_usable_captions_through():
    script = {
        "good": [GOOD],
        "refused": [(SORRY, "a dog")],
        "by the server": [(Rejection(Reason.CAPTION_REFUSED, "filtered"), "a dog")],
        "empty": [("a dog", "...")],
        "of two minds": [("a dog", "a cat")],
        "of a cat": [("a cat", "a cat")],
    }
    usable = caption(Scripted(**script))
    refused = Reason.CAPTION_REFUSED
    assert reasons(usable) == [None, refused, refused, Reason.CAPTION_EMPTY, None, None]
    assert usable[0].captions == {"caption_short": "a dog", "caption_long": "a dog on a lawn"}
    assert usable[4].scores == {"score_short": 1.0, "score_long": 0.0}
    agreeing = caption(Scripted(**script), CaptionGates(agreement=0.5))
    assert reasons(agreeing)[4:] == [Reason.CAPTION_DISAGREEMENT, None]
    fitting = caption(Scripted(**script), CaptionGates(score=0.5))
    assert reasons(fitting)[4:] == [Reason.CAPTION_SCORE, Reason.CAPTION_SCORE]


def test_a_record_that_fails_is_captioned_again_and_its_neighbours_are_not():
    captioner = Scripted(
        good=[GOOD],
        refused=[(SORRY, "a dog"), ("a brown dog", "a dog")],
        never=[(SORRY, SORRY)] * 2,
        broken=[(Rejection(Reason.ERRORED, "400: too wide"), "a dog")],
    )
    results = caption(captioner, CaptionGates(retries=1))
    assert reasons(results) == [None, None, Reason.CAPTION_REFUSED, Reason.ERRORED]
    assert results[1].captions["caption_short"] == "a brown dog"
    assert [r.retried and r.retried.reason.value for r in results] == [
        None,
        "caption_refused",
        "caption_refused",
        None,
    ]
    again = [keys for attempt, _, keys, _ in captioner.calls if attempt == 1]
    assert again == [("refused", "never")] * 2, "both kinds, and the failed records alone"


@pytest.mark.parametrize("hint", [None, "The page says: {alt_text}."])
def test_the_captioner_sees_the_alt_text_if_the_kind_has_a_hint(hint):
    from dataclasses import replace

    captioner = Scripted(a=[GOOD])
    records = [{"key": "a", "alt_text": 'a "good"\n dog'}]
    kinds = (replace(SHORT, hint=hint), LONG)
    writer = RecordCaptioner(captioner, WordJudge(), kinds)
    writer.caption(records, [Image.new("RGB", (4, 4))], DOG[None])
    shown = f"{SHORT.prompt}\nThe page says: a 'good' dog." if hint else SHORT.prompt
    assert [prompts for *_, prompts in captioner.calls] == [(shown,), (LONG.prompt,)]
