"""The batcher: an image is its request's own, whatever shares its batch; short requests pass long ones."""

from collections.abc import Iterator

import numpy as np
import pytest

from components.generation.generator import Generator
from components.randomness import sample_seeds
from pipelines.serving.batcher import LEAST_BATCH, Batcher, QueueFull
from pipelines.serving.work import Work
from tests.small_model import PROMPTS

SECONDS = 60  # for an answer, on a machine that does other things
PROMPT = PROMPTS[0]


@pytest.fixture
def generator(model_folder) -> Generator:
    return Generator.load(model_folder, device="cpu")


@pytest.fixture
def batcher(generator) -> Iterator[Batcher]:
    batcher = Batcher(max_requests=100, max_evaluations=10**6)
    batcher.watch(generator)
    yield batcher
    batcher.close()


@pytest.fixture
def passes(generator) -> list[int]:
    """Images of every forward pass of the network, in order."""
    sizes: list[int] = []
    generator.model.network.register_forward_hook(lambda _, inputs, output: sizes.append(len(output)))
    return sizes


def work(generator: Generator, prompts: list[str], seed: int = 0, steps: int = 1, *, upsample=False) -> Work:
    return Work(generator, prompts, sample_seeds(seed, len(prompts)), steps, None, upsample)


def test_an_image_is_the_same_whatever_is_in_its_batch(generator, batcher):
    asked = [
        work(generator, PROMPTS[: 1 + seed % 2] * 3, seed, 1 + seed % 3, upsample=seed == 3)
        for seed in range(9)
    ]
    answers = [batcher.submit(one) for one in asked]
    for one, answer in zip(asked, answers, strict=True):
        found, seed = answer.result(SECONDS), one.seeds[0].seed
        captions = [caption.caption for caption in found.prompts]
        if one.upsample:
            assert found.prompts == generator.upsample(one.prompts, seed=seed)
            assert captions != one.prompts
        alone = generator.generate(captions, seed=seed, steps=one.steps)
        # The same but for rounding: sums over padded texts come in another order.
        assert np.abs(alone.astype(int) - found.pixels.astype(int)).max() <= 1


def test_requests_that_come_together_share_forward_passes(generator, batcher, passes):
    long = batcher.submit(work(generator, [PROMPT] * 8, steps=100))
    answers = [batcher.submit(work(generator, [PROMPT], seed)) for seed in range(40)]
    for answer in answers:
        answer.result(SECONDS)
    long.result(SECONDS)
    short = [size for size in passes if size != 8]
    assert sum(passes) == 800 + 40
    assert len(short) <= 10


def test_a_slow_network_is_given_fewer_images_at_once(generator, batcher, passes):
    """So that what comes meanwhile waits for no longer than PASS_SECONDS, about."""
    asked = work(generator, PROMPTS * 16)
    batcher.costs["images"] = 1.0
    batcher.submit(asked).result(SECONDS)
    assert sum(passes) == len(asked.prompts) and passes[0] == LEAST_BATCH


def test_short_requests_go_between_the_passes_of_a_long_one(generator, batcher):
    long = batcher.submit(work(generator, PROMPTS * 8, 3, steps=200))
    for seed in range(3):
        short = batcher.submit(work(generator, [PROMPT], seed)).result(SECONDS)
        assert not long.done()
        assert np.array_equal(short.pixels, generator.generate([PROMPT], seed=seed))
    other = generator.generate(PROMPTS * 8, seed=3, steps=200)
    assert np.array_equal(long.result(SECONDS).pixels, other)


def test_a_cancelled_request_gives_up_its_place_in_the_middle(generator, batcher, passes):
    long = batcher.submit(work(generator, [PROMPT] * 40, steps=1000))
    batcher.submit(work(generator, [PROMPT])).result(SECONDS)
    assert long.cancel()
    batcher.submit(work(generator, [PROMPT] * 40, 1, steps=20)).result(SECONDS)
    assert sum(passes) < 20_000
    assert batcher.waiting() == (0, 0)


def test_what_is_too_much_to_wait_is_refused_with_when_to_come_again(generator, batcher):
    batcher.max_requests, batcher.max_evaluations = 2, 5000
    first = batcher.submit(work(generator, [PROMPT] * 8, steps=1000))  # over the limit, but alone
    with pytest.raises(QueueFull) as refused:
        batcher.submit(work(generator, [PROMPT]))
    assert refused.value.retry_after >= 1
    first.cancel()
    answers = [batcher.submit(work(generator, [PROMPT] * 2, steps=1000)) for _ in range(2)]
    with pytest.raises(QueueFull, match="too many requests are waiting; send it again in"):
        batcher.submit(work(generator, [PROMPT]))
    for answer in answers:
        answer.cancel()
    assert len(batcher.submit(work(generator, [PROMPT])).result(SECONDS).pixels) == 1


def test_a_batch_that_fails_fails_its_own_requests_only(generator, batcher):
    broken = work(generator, [PROMPT])
    broken.steps = 0
    with pytest.raises(ValueError, match="steps is 0"):
        batcher.submit(broken).result(SECONDS)
    assert len(batcher.submit(work(generator, [PROMPT])).result(SECONDS).pixels) == 1
