"""The network: what must not change its output, and what must."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from components.conditioning.text import TextTokens
from components.diffusion.dit import Block, DiT, DiTConfig, attend, attention_bias
from components.diffusion.positions import rotate, rotations

CONFIG = DiTConfig(image_size=16, patch=4, width=32, depth=2, heads=2, vocabulary=30)
CLOSE = {"atol": 2e-5, "rtol": 1e-4}  # single precision, summed in another order


def trained(config: DiTConfig = CONFIG, std: float = 0.2) -> DiT:
    """A network none of whose weights is zero, as after some training."""
    torch.manual_seed(0)
    model = DiT(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model.eval()


def trained_block() -> Block:
    """One that is not the first, none of whose weights is zero."""
    torch.manual_seed(0)
    block = Block(CONFIG, first=False)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.2)
    return block


def texts(*rows: tuple[int, ...], length: int = 8) -> TextTokens:
    values = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
    return TextTokens(values, values > 0)


def batch(size: int = 3) -> tuple[torch.Tensor, torch.Tensor, TextTokens]:
    generator = torch.Generator().manual_seed(1)
    x_t = torch.randn(size, 3, 16, 16, generator=generator)
    rows = [(1, *range(5, 6 + i)) for i in range(size)]
    return x_t, torch.linspace(0.1, 1.0, size), texts(*rows)


@torch.no_grad()
def test_more_padding_changes_nothing():
    model, (x_t, t, text) = trained(), batch()
    longer = TextTokens(F.pad(text.values, (0, 16)), F.pad(text.mask, (0, 16)))
    torch.testing.assert_close(model(x_t, t, longer), model(x_t, t, text), **CLOSE)
    garbage = TextTokens(torch.where(longer.mask, longer.values, 23), longer.mask)
    assert torch.equal(model(x_t, t, garbage), model(x_t, t, longer))


@torch.no_grad()
def test_an_image_does_not_see_its_neighbours_in_the_batch():
    model, (x_t, t, text) = trained(), batch(5)
    together = model(x_t, t, text)
    for i in (0, 4):
        row = slice(i, i + 1)
        alone = model(x_t[row], t[row], TextTokens(text.values[row], text.mask[row]))
        torch.testing.assert_close(alone, together[row], **CLOSE)


@torch.no_grad()
def test_text_time_and_every_position_of_the_image_matter():
    model, (x_t, t, text) = trained(), batch(1)
    out = model(x_t, t, text)
    others = {
        "time": model(x_t, t + 0.3, text),
        "a token": model(x_t, t, texts((1, 9))),
        "no text": model(x_t, t, texts((1,))),
        "order of tokens": model(x_t, t, texts((1, 9, 5))) - model(x_t, t, texts((1, 5, 9))) + out,
        "rows": model(x_t.flip(2), t, text).flip(2),
        "columns": model(x_t.flip(3), t, text).flip(3),
        "rows or columns": model(x_t.transpose(2, 3), t, text).transpose(2, 3),
    }
    for name, other in others.items():
        assert (other - out).abs().max() > 1e-3, name


@torch.no_grad()
def test_a_block_distinguishes_tokens_by_their_rotations_alone():
    """Attention has no order: tokens permuted with their rotations give permuted outputs."""
    block = trained_block()
    tokens, condition = torch.randn(2, 8 + 16, 32), torch.randn(2, 6, 32)
    rotation = rotations(8, 4, 4, 4, 16, torch.device("cpu"))
    bias = attention_bias(torch.arange(8)[None] < torch.tensor([[3], [8]]), 16)
    permutation = torch.cat([torch.arange(8), 8 + torch.randperm(16)])
    for before in (None, torch.randn(2, 8 + 16, 2, 16)):
        out, _ = block(tokens, condition, rotation, bias, before)
        moved_before = None if before is None else before[:, permutation]
        moved, _ = block(tokens[:, permutation], condition, rotation[permutation], bias, moved_before)
        torch.testing.assert_close(moved, out[:, permutation], **CLOSE)
    patches = torch.view_as_real(rotation[8:]).flatten(1)
    assert len({tuple(row) for row in patches.round(decimals=4).tolist()}) == 16


@torch.no_grad()
def test_a_block_without_its_unread_tokens_gives_the_others_as_before():
    block = trained_block()
    tokens, condition, before = torch.randn(2, 24, 32), torch.randn(2, 6, 32), torch.randn(2, 24, 2, 16)
    rotation = rotations(8, 4, 4, 4, 16, torch.device("cpu"))
    bias = attention_bias(torch.arange(8)[None] < torch.tensor([[3], [8]]), 16)
    every, values = block(tokens, condition, rotation, bias, before)
    rest, same = block(tokens, condition, rotation, bias, before, 8)
    torch.testing.assert_close(rest, every[:, 8:], **CLOSE)
    torch.testing.assert_close(same, values, **CLOSE)


@torch.no_grad()
def test_the_last_block_takes_no_text_further():
    model, rows = trained(), []
    for block in model.blocks:
        block.mlp_in.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0].shape[1]))
    model(*batch())
    assert rows == [8 + 16, 16]


def test_attention_depends_on_the_distance_between_positions_only():
    rotation = rotations(0, 6, 1, 6, 16, torch.device("cpu"))  # one column of six rows
    q, k = torch.randn(2, 16, generator=torch.Generator().manual_seed(0)).repeat_interleave(6, 0).chunk(2)
    q, k = (rotate(x.view(1, 6, 1, 16), rotation)[0, :, 0] for x in (q, k))
    scores = q @ k.T
    for offset in range(-5, 6):
        diagonal = scores.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), **CLOSE)


def test_both_ways_of_attention_agree():
    generator = torch.Generator().manual_seed(0)
    mask = attention_bias(torch.tensor([[True] * 3 + [False] * 5]), 12)
    few = [torch.randn(1, 20, 2, 16, generator=generator) for _ in range(3)]
    fused = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in few), attn_mask=mask)
    torch.testing.assert_close(attend(*few, mask), fused.transpose(1, 2).flatten(2), **CLOSE)
    many = [torch.randn(1, 300, 2, 16, generator=generator) for _ in range(3)]  # more than are written out
    q, k, v = (x.transpose(1, 2) for x in many)
    written = torch.softmax(q @ k.transpose(2, 3) / 4, dim=-1) @ v
    whole = attention_bias(torch.ones(1, 0, dtype=torch.bool), 300)
    torch.testing.assert_close(attend(*many, whole), written.transpose(1, 2).flatten(2), **CLOSE)


def test_it_starts_as_the_identity_in_every_block_and_as_zero_in_the_end():
    torch.manual_seed(0)
    model, (x_t, t, text) = DiT(CONFIG), batch()
    assert torch.equal(model(x_t, t, text), torch.zeros_like(x_t))
    tokens = torch.randn(3, 24, 32)
    shared = model.modulation(torch.randn(3, 32)).unflatten(-1, (8, -1))
    rotation, bias, values = rotations(8, 4, 4, 4, 16, x_t.device), attention_bias(text.mask, 16), None
    for block in model.blocks:
        same, values = block(tokens, shared[:, :6], rotation, bias, values)
        assert torch.equal(same, tokens)
    nn.init.normal_(model.out.weight)  # the output layer alone: no token and no neighbour has come in yet
    others, changed = texts((1, 9), (1, 9), (1, 9)), x_t.clone()
    changed[:, :, 4:, :] = 0
    assert torch.equal(model(changed, t, others)[:, :, :4], model(x_t, t, text)[:, :, :4])


def test_training_s_precision_gives_every_weight_a_gradient_and_stays_near_single():
    """Also after a pass without gradients, whose rounded weights autocast might have kept."""
    model, (x_t, t, text) = trained(std=0.1), batch()
    exact = model(x_t, t, text)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            model(x_t, t, text)
        rounded = model(x_t, t, text)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.05 * exact.abs().max().item(), rtol=0.05)
    rounded.square().sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert not without


def test_weights_of_earlier_models_load():
    """Their value_mix is a number, without a dimension."""
    model = trained()
    earlier = {
        name: tensor[0] if name.endswith("value_mix") else tensor
        for name, tensor in model.state_dict().items()
    }
    earlier["blocks.1.value_mix"] = torch.tensor(0.25)
    model.load_state_dict(earlier)
    assert model.blocks[1].value_mix.tolist() == [0.25]


def test_checkpointed_activations_take_less_memory_and_change_no_bit():
    model, (x_t, t, text) = trained(CONFIG.model_copy(update={"depth": 5})), batch()
    kept = []

    def gradients() -> list[torch.Tensor]:
        kept.append(0)

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[-1] += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(x_t, t, text).square().mean()
        return list(torch.autograd.grad(loss, list(model.parameters())))

    plain = gradients()
    model.checkpoint_activations()
    again = gradients()
    assert all(map(torch.equal, plain, again))
    assert kept[1] < kept[0] / 3


@torch.no_grad()
def test_frozen_features_come_in_place_of_ids():
    model = trained(CONFIG.model_copy(update={"vocabulary": 0, "text_features": 5}))
    x_t, t, text = batch()
    features = TextTokens(torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(2)), text.mask)
    out = model(x_t, t, features)
    garbage = torch.where(text.mask[..., None], features.values, 1e3)
    assert torch.equal(model(x_t, t, TextTokens(garbage, text.mask)), out)
    assert (model(x_t, t, TextTokens(-features.values, text.mask)) - out).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"image_size": 32, "patch": 5}, "image_size 32 is not a multiple of patch 5"),
        ({"width": 30, "heads": 4}, "width 30 does not split into 4 heads"),
        ({"depth": 0}, "greater than 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_when_the_config_is_read(sizes, message):
    with pytest.raises(ValidationError, match=message):
        DiTConfig(**sizes)


@pytest.mark.parametrize("text", [{}, {"vocabulary": 30, "text_features": 5}])
def test_text_is_learned_or_frozen_not_both_or_neither(text):
    with pytest.raises(ValueError, match="set either vocabulary"):
        DiT(DiTConfig(**text))
