"""The training loop on a regression that has an answer: resume to the bit, counting, divergence."""

from collections.abc import Iterator
from functools import partial
from itertools import count, groupby
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from components.training import loop
from components.training.checkpoints import BackgroundCheckpoints, Checkpoints
from components.training.config import OptimizerConfig, TrainingConfig
from components.training.curve import LOOK_STEPS, CurvePoint, Meter
from components.training.loop import Trained, train
from components.training.loss import Batch, LossContext, Losses
from components.training.noise import SampleNoise

BATCH = 8
CONFIG = TrainingConfig(
    images=30 * BATCH,
    batch_size=BATCH,
    optimizer=OptimizerConfig(learning_rate=1e-2, muon_learning_rate=1e-2, warmup_images=20),
    ema_halflife_images=50,
    checkpoint_images=5 * BATCH,
    log_images=7 * BATCH,  # points and checkpoints do not fall together
    precision="no",
)
TRUTH = torch.linspace(-1, 1, 12).view(4, 3)


class Killed(BaseException):
    """Stands for the process's end."""


class Net(nn.Module):
    """Has a matrix for Muon, and biases for AdamW."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 16)])
        self.out = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.blocks[0](x)))


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def batches(images_seen: int) -> Iterator[Batch]:
    for number in count(images_seen // BATCH):
        x = torch.randn(BATCH, 4, generator=torch.Generator().manual_seed(number))
        keys, epochs = [f"{number}-{row}" for row in range(BATCH)], [number // 10] * BATCH
        yield {"x": x, "y": x @ TRUTH, "keys": keys, "epochs": epochs}


def loss(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
    """Noisy, so that a resumed run must also find the noise again."""
    noise = context.noise.normal("x", batch["x"].shape[1:])
    error = (model(batch["x"] + 0.1 * noise).float() - batch["y"]).square().mean()
    return Losses(error, {"noise": noise.mean()})


def run(config: TrainingConfig = CONFIG, folder: Path | None = None, kind=Checkpoints, **changes) -> Trained:
    settings = {"loss": loss, "batches": batches, "seed": 3, "purpose": "test", **changes}
    loss_function, source = settings.pop("loss"), settings.pop("batches")
    checkpoints = kind(folder) if folder else None
    return train(net(), loss_function, source, config, checkpoints=checkpoints, **settings)


def dying_after(steps: int):
    def source(images_seen: int) -> Iterator[Batch]:
        following = batches(images_seen)
        for _ in range(steps):
            yield next(following)
        raise Killed

    return source


def assert_same(a: Trained, b: Trained) -> None:
    for model, other in ((a.model, b.model), (a.ema, b.ema)):
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
    assert a.curve == b.curve


@pytest.mark.parametrize(
    ("precision", "kind"), [("no", Checkpoints), ("bf16", Checkpoints), ("no", BackgroundCheckpoints)]
)
def test_a_run_that_died_twice_ends_as_one_that_did_not(tmp_path, precision, kind):
    config = CONFIG.model_copy(update={"precision": precision})
    whole = run(config)
    for steps in (13, 9):  # dies at 13, goes on from 10 and dies at 19, goes on from 15
        with pytest.raises(Killed):
            run(config, tmp_path, kind, batches=dying_after(steps))
    starts = []

    def source(images_seen):
        starts.append(images_seen)
        return batches(images_seen)

    assert_same(run(config, tmp_path, kind, batches=source), whole)
    assert starts == [15 * BATCH]


def test_the_target_s_average_is_one_of_its_own_half_life_and_resumes_to_the_bit(tmp_path):
    """Against an average made by hand, of a half-life that grows; the killed run's targets are the same."""
    targets: list[torch.Tensor] = []
    by_hand: list[torch.Tensor] = []

    def halflife(images_seen: int) -> float:
        return 16.0 + images_seen

    def loss_on_target(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
        weights = model.out.weight.detach().clone()
        kept = 0.5 ** (BATCH / halflife(context.images_seen)) if by_hand else 0.0
        by_hand.append(torch.lerp(weights, by_hand[-1], kept) if by_hand else weights)
        targets.append(context.target.out.weight.clone())
        assert not context.target.training and not context.target.out.weight.requires_grad
        x = batch["x"]
        return Losses((model(x) - context.target(x) - batch["y"]).square().mean())

    settings = {"loss": loss_on_target, "target_halflife": halflife}
    whole = run(**settings)
    for target, expected in zip(targets, by_hand, strict=True):
        torch.testing.assert_close(target, expected, rtol=1e-5, atol=1e-6)
    undisturbed = list(targets)
    targets.clear()
    with pytest.raises(Killed):
        run(folder=tmp_path, batches=dying_after(12), **settings)
    resumed_at = len(targets) - 2  # of the checkpoint at 10 steps
    resumed = run(folder=tmp_path, **settings)
    assert_same(resumed, whole)
    assert all(map(torch.equal, targets[-20:], undisturbed[resumed_at:]))


def test_a_finished_run_is_found_finished(tmp_path):
    whole, steps = run(folder=tmp_path), []
    again = run(folder=tmp_path, on_batch=lambda images, value: steps.append(images))
    assert steps == []
    assert_same(again, whole)


def test_a_damaged_checkpoint_costs_time_and_nothing_else(tmp_path):
    whole = run()
    with pytest.raises(Killed):
        run(folder=tmp_path, batches=dying_after(12))
    (state,) = tmp_path.glob("*/state.pt")
    state.write_bytes(state.read_bytes()[:-7])
    assert_same(run(folder=tmp_path), whole)


def test_a_loss_knows_how_far_the_run_is_and_has_the_average_and_the_noise():
    contexts: list[LossContext] = []

    def spy(model, batch, context):
        expected = SampleNoise.of(batch, 3, "test", torch.device("cpu"))
        assert torch.equal(context.noise.normal("x"), expected.normal("x"))
        assert not context.ema.training and not any(p.requires_grad for p in context.ema.parameters())
        contexts.append(context)
        return loss(model, batch, context)

    trained = run(loss=spy)
    assert [context.images_seen for context in contexts] == [n * BATCH for n in range(30)]
    assert {context.total_images for context in contexts} == {30 * BATCH}
    assert all(context.ema is trained.ema for context in contexts)
    assert len({seed for context in contexts for seed in context.noise.seeds}) == 30 * BATCH


def test_a_loss_of_a_run_without_an_average_gets_none():
    def spy(model, batch, context):
        assert context.ema is None
        return loss(model, batch, context)

    trained = run(CONFIG.model_copy(update={"ema_halflife_images": 0}), loss=spy)
    assert trained.ema is trained.model


def test_the_curve_has_a_point_every_so_many_images_and_one_at_the_end():
    steps: list[tuple[int, float]] = []
    points: list[CurvePoint] = []
    trained = run(on_batch=lambda images, value: steps.append((images, value)), on_point=points.append)
    assert [images for images, _ in steps] == [BATCH] * 30
    assert [point.images_seen // BATCH for point in trained.curve] == [7, 14, 21, 28, 30]
    assert tuple(points) == trained.curve
    values = [value for _, value in steps]
    assert trained.curve[1].values["loss"] == pytest.approx(sum(values[7:14]) / 7)
    assert trained.curve[-1].values["loss"] == pytest.approx(sum(values[28:]) / 2)
    assert set(trained.curve[0].values) == {"loss", "grad_norm", "learning_rate", "noise"}
    assert all(point.images_per_second > 0 for point in points)


def test_it_learns_and_the_average_learns_too():
    config = CONFIG.model_copy(update={"images": 300 * BATCH, "log_images": 100 * BATCH})
    trained = run(config)
    first, *_, last = (point.values["loss"] for point in trained.curve)
    assert last < first / 4
    held_out = next(batches(10**6 * BATCH))
    with torch.no_grad():
        for model in (trained.model, trained.ema):
            assert not model.training
            error = (model(held_out["x"]) - held_out["y"]).square().mean()
            assert error < held_out["y"].square().mean() / 4


def test_a_batch_in_parts_gives_the_same_weights_and_curve_but_for_rounding():
    whole, sizes = run(), []

    def spy(model, batch, context):
        sizes.append({len(batch[name]) for name in ("x", "y", "keys")} | {len(context.noise.seeds)})
        return loss(model, batch, context)

    in_parts = run(loss=spy, accumulation=4)
    assert sizes == [{BATCH // 4}] * 4 * 30
    for name, weights in whole.ema.state_dict().items():
        torch.testing.assert_close(in_parts.ema.state_dict()[name], weights, rtol=1e-4, atol=1e-5)
    for part, point in zip(in_parts.curve, whole.curve, strict=True):
        assert part.values == pytest.approx(point.values, rel=1e-3, abs=1e-6)


def test_images_that_are_no_multiple_of_the_batch_are_rounded_up():
    trained = run(CONFIG.model_copy(update={"images": 3 * BATCH - 2}))
    assert trained.curve[-1].images_seen == 3 * BATCH


def diverging_loss(broken: str, model: nn.Module, batch: Batch, context: LossContext) -> Losses:
    """Not finite, or without a finite gradient, at 96 images."""
    good = loss(model, batch, context).loss
    if context.images_seen != 96:
        return Losses(good)
    root = torch.sqrt(model.out.bias.sum() * 0)  # 0, and its slope is not a number
    return Losses(good + (torch.inf if broken == "loss" else root))  # the first has a gradient


@pytest.fixture
def as_on_a_gpu(monkeypatch) -> None:
    """The loop looks at its values as seldom as on a GPU."""
    monkeypatch.setattr(loop, "Meter", lambda device, *rest: Meter(torch.device("cuda"), *rest))


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_diverged_run_stops_before_it_spoils_a_weight(tmp_path, broken):
    model = net()

    diverges = partial(diverging_loss, broken)
    with pytest.raises(
        FloatingPointError, match=r"^training diverged at 96 images \(.*lower the learning rate$"
    ):
        train(model, diverges, batches, CONFIG, seed=3, purpose="test", checkpoints=Checkpoints(tmp_path))
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert Checkpoints(tmp_path).latest()["images_seen"] == 10 * BATCH


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_on_a_gpu_it_stops_before_it_is_written_anywhere(tmp_path, as_on_a_gpu, broken):
    points: list[CurvePoint] = []
    with pytest.raises(FloatingPointError, match=r"^training diverged at 96 images \("):
        run(folder=tmp_path, loss=partial(diverging_loss, broken), on_point=points.append)
    assert Checkpoints(tmp_path).latest()["images_seen"] == 10 * BATCH
    assert [point.images_seen for point in points] == [7 * BATCH]


def test_on_a_gpu_the_numbers_are_the_same_and_looked_at_seldom(tmp_path, as_on_a_gpu, monkeypatch):
    losses: list[float] = []
    with pytest.raises(Killed):
        run(folder=tmp_path, batches=dying_after(13))
    seldom = run(folder=tmp_path, on_batch=lambda images, value: losses.append(value))
    # The first step's, then that of the latest point or checkpoint: at 14, 15, 20, 21, 25 and 28 steps.
    assert [len(list(steps)) for _, steps in groupby(losses)] == [4, 1, 5, 1, 4, 3, 2]
    monkeypatch.undo()
    assert_same(seldom, run())
    assert CONFIG.images // BATCH < LOOK_STEPS


def test_the_gradient_is_clipped_and_its_whole_norm_reported():
    """Clipped far below AdamW's epsilon, the weights hardly move; the norm reported is that before it."""
    moved = []
    for clip_norm in (1.0, 1e-11):
        optimizer = CONFIG.optimizer.model_copy(update={"clip_norm": clip_norm, "muon_learning_rate": 0})
        trained = run(CONFIG.model_copy(update={"optimizer": optimizer}))
        moved.append((trained.model.out.weight - net().out.weight).abs().max().item())
        assert trained.curve[0].values["grad_norm"] > 0.1
    assert moved[1] < moved[0] / 50


def test_two_trainings_of_one_process_may_differ_in_precision():
    rounded = run(CONFIG.model_copy(update={"precision": "bf16", "images": 2 * BATCH}))
    exact = run(CONFIG.model_copy(update={"precision": "no", "images": 2 * BATCH}))
    assert not torch.equal(rounded.model.out.weight, exact.model.out.weight)

    def computes_in(dtype):
        def spy(model, batch, context):
            assert model(batch["x"]).dtype == dtype
            return loss(model, batch, context)

        return spy

    run(CONFIG.model_copy(update={"precision": "bf16", "images": BATCH}), loss=computes_in(torch.bfloat16))
    run(CONFIG.model_copy(update={"precision": "no", "images": BATCH}), loss=computes_in(torch.float32))


@pytest.mark.parametrize(
    "wrong", [{}, {"images": 0}, {"images": 8, "precision": "fp8"}, {"images": 8, "steps": 3}]
)
def test_a_bad_config_is_refused(wrong):
    with pytest.raises(ValidationError):
        TrainingConfig(**wrong)
