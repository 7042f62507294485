"""What is decided over the whole corpus, and what is decided over one record alone."""

import io

import numpy as np
from PIL import Image

from components.corpus.fragments import RawRecord
from components.corpus.images import ImageRules
from components.corpus.schemas import Reason
from components.filtering.alt_text import AltTextRules
from components.filtering.duplicates import DuplicateRules, perceptual_hash
from components.filtering.examine import Kept, Rejected, examine
from components.filtering.selection import MeasuredRecord, select


def noise_image(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def measured(name: int, score: float | None, key: str | None = None) -> MeasuredRecord:
    return MeasuredRecord(key or f"key{name}", f"sha{name}", perceptual_hash(noise_image(name)), score)


def reasons(rows, threshold=None, share=None) -> dict[int, Reason]:
    return {i: r.reason for i, r in select(rows, DuplicateRules(), threshold, share).items()}


def test_a_record_whose_text_was_dropped_is_under_no_threshold_and_gives_way_to_a_copy_with_a_text():
    rows = [measured(1, None), measured(1, 0.9), measured(2, None), measured(3, 0.1), measured(4, 0.8)]
    assert reasons(rows) == {0: Reason.DUPLICATE}
    assert reasons(rows, threshold=0.5) == {0: Reason.DUPLICATE, 3: Reason.JUDGE_SCORE}
    assert reasons(rows, share=0.3) == {0: Reason.DUPLICATE, 3: Reason.JUDGE_SCORE, 4: Reason.JUDGE_SCORE}


def test_a_text_is_dropped_or_its_record_rejected_as_its_reason_has_it():
    raw = RawRecord(png(noise_image(5)), "IMG_2044.JPG", "https://a.example/5")
    rejected = examine(raw, "k", AltTextRules(), ImageRules())
    assert isinstance(rejected, Rejected)
    kept = examine(raw, "k", AltTextRules(policy={Reason.ALT_FILENAME: "recaption"}), ImageRules())
    assert isinstance(kept, Kept)
    assert (kept.alt_text, kept.language) == (None, "und")
    assert kept.dropped == rejected.rejection
    assert kept.raw_alt_text == raw.alt_text


def test_a_copy_with_a_fitting_text_stands_in_for_a_first_one_without():
    rows = [measured(1, 0.1), measured(1, 0.9), measured(1, 0.8)]
    assert reasons(rows) == {1: Reason.DUPLICATE, 2: Reason.DUPLICATE}
    assert reasons(rows, threshold=0.5) == {0: Reason.JUDGE_SCORE, 2: Reason.DUPLICATE}


def test_copies_do_not_count_in_the_share():
    rows = [measured(1, 0.9), measured(1, 0.95), measured(2, 0.5), measured(3, 0.6), measured(4, 0.7)]
    expected = {1: Reason.DUPLICATE, 2: Reason.JUDGE_SCORE, 3: Reason.JUDGE_SCORE}
    assert reasons(rows, share=0.5) == expected


def test_equal_scores_are_told_apart_by_key_and_nan_never_passes():
    rows = [measured(1, 0.5, "b"), measured(2, 0.5, "a"), measured(3, float("nan"), "c")]
    assert reasons(rows, threshold=0.0, share=0.5) == {0: Reason.JUDGE_SCORE, 2: Reason.JUDGE_SCORE}


def test_a_good_record_survives_with_its_measures():
    record = RawRecord(png(noise_image(1)), " A red &amp; blue square\n", "https://toy.example/1")
    examined = examine(record, "k", AltTextRules(), ImageRules())
    assert isinstance(examined, Kept)
    assert (examined.key, examined.alt_text, examined.language) == ("k", "A red & blue square", "en")
    assert (examined.width, examined.height, examined.image) == (64, 48, record.image)
    assert examined.phash == perceptual_hash(noise_image(1))


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
