"""The distance of images to the nearest training image: a model that memorised stands far below the floor."""

import numpy as np
import numpy.typing as npt

from components.errors import InputError

Features = npt.NDArray[np.float32]
ROWS = 256  # that are compared with all training images at once


def nearest_distances(images: Features, training: Features) -> npt.NDArray[np.float64]:
    """The cosine distance (1 - cosine) of each row of `images` (N, D) to its nearest of `training` (M, D).

    Both hold unit vectors. (N,). Raises InputError where there is nothing to compare with.
    """
    if len(training) == 0:
        raise InputError("there is no training image to compare with; see the shards' train split")
    nearest = [
        (images[at : at + ROWS] @ training.T).max(axis=1).astype(np.float64)
        for at in range(0, len(images), ROWS)
    ]
    return np.maximum(1 - np.concatenate(nearest), 0) if nearest else np.zeros(0)
