"""What generated images are compared with: held-out images with their captions, and training images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from components.errors import InputError
from components.evaluation.frechet import frechet_distance
from components.evaluation.kernel import kernel_distance
from components.evaluation.metrics import Features, Pixels
from components.evaluation.nearest import nearest_distances
from components.judge.judge import Judge
from components.randomness import derive_seed
from components.shards.decode import decode_square
from components.shards.writer import Sample
from components.toyworld.parsing import parse
from components.toyworld.prompts import ToyPrompt, scene_for
from components.toyworld.render import render
from components.toyworld.statements import Statements

MOST_THINGS = 4  # of a scene of the toy world
CAPTION = "caption_long"  # of a held-out record, for the Fréchet and the kernel distance


@dataclass(frozen=True)
class Reference:
    """Held-out images and training images as the judge's unit vectors.

    captions: the long caption of each held-out image, from which the models' images are generated as it is.
    The long one, because it says what is in its image: images of these captions should be distributed as
    the images are, so that a distance is the model's fault. A short one leaves open what the image has, and
    upsampled it would say what the upsampler likes.
    """

    captions: tuple[str, ...]  # M
    held_out: Features  # (M, D)
    training: Features  # (T, D)


def make_reference(
    judge: Judge, held_out: Iterable[Sample], training: Iterable[Sample], size: int
) -> Reference:
    """The reference of held-out records that have a long caption, and of training records.

    size: side of the images in pixels, as training would see them. Raises InputError for fewer than two
    captions, or no training image.
    """
    captioned = [sample for sample in held_out if caption_of(sample)]
    if len(captioned) < 2:
        raise InputError(
            f"{len(captioned)} held-out records have a long caption, and a Fréchet distance needs two; see"
            " recaption"
        )
    training_features = features_of_records(judge, training, size)
    if len(training_features) == 0:
        raise InputError("the shards have no training record; see shard.holdout_fraction")
    held_out_features = features_of_records(judge, captioned, size)
    return Reference(tuple(map(caption_of, captioned)), held_out_features, training_features)


def caption_of(sample: Sample) -> str:
    """The long caption of a record; empty where it has none."""
    return str(sample.meta.get(CAPTION) or "").strip()


def features_of_records(judge: Judge, records: Iterable[Sample], size: int) -> Features:
    """The judge's features of records' images as training would see them: square, `size` pixels. (N, D)"""
    squares = (Image.fromarray(decode_square(record.image, size)) for record in records)
    return judge.image_features([judge.prepare(square) for square in squares])


def features_of_images(judge: Judge, images: Pixels) -> Features:
    """The judge's features of generated images (N, H, W, 3). (N, D)"""
    return judge.image_features([Image.fromarray(image) for image in images])


def memorisation_floor(reference: Reference) -> float:
    """The median distance of the held-out images, which no model has seen, to the nearest training image."""
    return float(np.median(nearest_distances(reference.held_out, reference.training)))


def true_render_floors(judge: Judge, reference: Reference, size: int, seed: int) -> dict[str, float]:
    """The Fréchet and the kernel distance of true renders of the reference's captions, on the toy world.

    A caption that is none of the grammar, or of no scene that can be (a captioner's mistake), has no true
    render and is left out. Empty where fewer than two are left.
    """
    renders = true_renders(reference.captions, size, seed)
    if len(renders) < 2:
        return {}
    features = features_of_images(judge, np.stack(renders))
    return {
        "frechet": frechet_distance(features, reference.held_out),
        "kernel": kernel_distance(features, reference.held_out),
    }


def true_renders(captions: Sequence[str], size: int, seed: int) -> list[Pixels]:
    """A render (size, size, 3) of each caption that has one: what it leaves open is as the web draws it."""
    renders = []
    for index, caption in enumerate(captions):
        stated = parse(caption)
        if stated is None or not _can_be_drawn(stated):
            continue
        rng = np.random.default_rng(derive_seed(seed, "true render of a caption", index))
        try:
            scene = scene_for(ToyPrompt(caption, "long", stated, None), rng)
        except InputError:
            continue
        renders.append(np.asarray(render(scene, size)))
    return renders


def _can_be_drawn(stated: Statements) -> bool:
    """Whether scenes have so many things, and a relation, if any, has one thing on either side."""
    alone = len(stated.claims) == 2 and stated.count == 2
    return 1 <= stated.count <= MOST_THINGS and (stated.relation is None or alone)
