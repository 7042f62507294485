"""What is decided over the whole corpus, and what is decided over one record alone."""

import io

import numpy as np
import pytest
from PIL import Image

from components.corpus.fragments import RawRecord
from components.corpus.images import ImageRules
from components.corpus.schemas import Reason
from components.filtering.alt_text import AltTextRules
from components.filtering.examine import Kept, Rejected, examine
from components.filtering.selection import ScoreLimits, best_share
from components.filtering.signature import signature_of


def noise_image(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def kept(scores, threshold=None, share=1.0, keys="abcdefgh") -> list[str]:
    """The keys that go on, of records that are no copies."""
    limits = ScoreLimits(threshold)
    left = [row for row, score in enumerate(scores) if limits.below_threshold(score) is None]
    array = np.array([scores[row] for row in left], np.float32)
    limits = best_share(array, share, threshold, lambda rows: [keys[left[row]] for row in rows])
    return [
        keys[row] for row in left if limits.beyond_share(float(array[left.index(row)]), keys[row]) is None
    ]


def test_the_best_share_goes_on_and_of_equal_scores_the_lowest_keys():
    assert kept([0.9, 0.5, 0.6, 0.7], share=0.5) == ["a", "d"]
    assert kept([0.5, 0.9, 0.5, 0.5], share=0.5, keys="dcab") == ["c", "a"]
    assert kept([0.5], share=0.01) == ["a"]
    assert kept([], share=0.5) == []


def test_a_text_is_dropped_or_its_record_rejected_as_its_reason_has_it():
    raw = RawRecord(png(noise_image(5)), "IMG_2044.JPG", "https://a.example/5")
    rejected = examine(raw, "k", AltTextRules(), ImageRules())
    assert isinstance(rejected, Rejected)
    kept = examine(raw, "k", AltTextRules(policy={Reason.ALT_FILENAME: "recaption"}), ImageRules())
    assert isinstance(kept, Kept)
    assert (kept.alt_text, kept.language) == (None, "und")
    assert kept.dropped == rejected.rejection
    assert kept.raw_alt_text == raw.alt_text


def test_a_record_whose_text_was_dropped_is_under_no_threshold_and_no_share():
    limits = ScoreLimits(0.5, 0.1, 0.9, "a")
    assert limits.below_threshold(None) is limits.beyond_share(None, "b") is None
    assert limits.below_threshold(0.4) and limits.beyond_share(0.6, "b")


def test_a_score_that_is_no_number_never_passes_a_threshold():
    assert kept([float("nan"), 0.5, -0.1], threshold=0.0) == ["b"]
    assert kept([float("nan"), 0.5, -0.1], share=0.6) == ["b", "c"]


def test_a_good_record_survives_with_its_measures():
    record = RawRecord(png(noise_image(1)), " A red &amp; blue square\n", "https://toy.example/1")
    examined = examine(record, "k", AltTextRules(), ImageRules())
    assert isinstance(examined, Kept)
    assert (examined.key, examined.alt_text, examined.language) == ("k", "A red & blue square", "en")
    assert (examined.width, examined.height, examined.image) == (64, 48, record.image)
    assert examined.phash == signature_of(noise_image(1)).phash


@pytest.mark.parametrize(("judge_side", "side"), [(64, 225), (225, 225), (226, 300), (301, 600), (None, 600)])
def test_a_jpeg_is_decoded_as_small_as_signature_and_judge_allow(judge_side, side):
    photo = noise_image(1).resize((600, 600))
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG")
    record = RawRecord(buffer.getvalue(), "A red square", None)
    examined = examine(record, "k", AltTextRules(), ImageRules(), judge_side)
    assert isinstance(examined, Kept)
    assert (examined.width, examined.height) == (600, 600)
    assert examined.pixels.size == (side, side)


def test_a_bad_text_is_rejected_though_its_image_is_fine_and_keeps_its_text_as_it_came():
    examined = examine(RawRecord(png(noise_image(1)), " IMG_1.JPG ", None), "k", AltTextRules(), ImageRules())
    assert isinstance(examined, Rejected)
    assert (examined.rejection.reason, examined.alt_text) == (Reason.ALT_FILENAME, " IMG_1.JPG ")


def test_what_nobody_foresaw_is_errored_and_stops_nothing():
    record = RawRecord(png(noise_image(1)), 12345678, None)  # a text that is none
    examined = examine(record, "k", AltTextRules(), ImageRules())
    assert isinstance(examined, Rejected)
    assert examined.rejection.reason == Reason.ERRORED
    assert examined.rejection.detail.startswith("TypeError: ")
