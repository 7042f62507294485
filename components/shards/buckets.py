"""Aspect-ratio buckets: at which size a record is trained, and which batch is of which size.

A tar holds records of one bucket, and so does a batch, whose images then have one shape. Which bucket a
batch is of does not depend on the rank: all ranks compute the same shapes in a step, so none waits for
another, and a step compiles at most one new shape.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from components.image_size import ImageSize
from components.randomness import derive_seed
from components.shards.order import permutation


def nearest_bucket(size: ImageSize, buckets: Sequence[ImageSize]) -> ImageSize:
    """The bucket whose aspect ratio is nearest, in log, to that of an image.

    Of several sizes of that ratio it is the largest that the image covers without being enlarged, else the
    smallest; of what is still equal (a square image between 40x24 and 24x40) the first.
    """

    def distance(bucket: ImageSize) -> tuple[float, bool, int]:
        ours, theirs = size.width * bucket.height, size.height * bucket.width
        ratio = max(ours, theirs) / min(ours, theirs)  # of equal ratios the same to the bit, unlike logs
        enlarges = bucket.height > size.height or bucket.width > size.width
        return ratio, enlarges, bucket.pixels if enlarges else -bucket.pixels

    return min(buckets, key=distance)


class BatchSchedule:
    """The bucket of each batch, by its number: a pure function of (seed, samples of each bucket, batch size).

    When e epochs are over, bucket b has given ceil(e N_b / batch_size) batches: all N_b records as often as
    there were epochs, and none of the next epoch but what completes its last batch. Within an epoch the order
    is random.
    """

    def __init__(self, samples: Sequence[int], batch_size: int, seed: int) -> None:
        self.samples, self.batch_size, self.seed = samples, batch_size, seed

    def before(self, number: int) -> list[int]:
        """How many batches each bucket gives before the batch of that number."""
        epoch = self._epoch_of(number)
        given = self._given(epoch)
        order = self._order(epoch)[: number - sum(given)]
        return [count + int((order == bucket).sum()) for bucket, count in enumerate(given)]

    def buckets_from(self, number: int) -> Iterator[int]:
        """The bucket (by position) of that batch and of all that follow."""
        epoch = self._epoch_of(number)
        skipped = number - sum(self._given(epoch))
        while True:
            yield from self._order(epoch)[skipped:].tolist()
            epoch, skipped = epoch + 1, 0

    def _given(self, epochs: int) -> list[int]:
        return [-(-epochs * count // self.batch_size) for count in self.samples]

    def _epoch_of(self, number: int) -> int:
        epoch = number * self.batch_size // sum(self.samples)  # rounding up makes batches come earlier
        while sum(self._given(epoch)) > number:
            epoch -= 1
        return epoch

    def _order(self, epoch: int) -> np.ndarray:
        counts = np.subtract(self._given(epoch + 1), self._given(epoch))
        order = np.repeat(np.arange(len(counts)), counts)
        return order[permutation(derive_seed(self.seed, "buckets", epoch), len(order))]
