"""Heads on embeddings: their scores, the reasons of their thresholds, and files that are none."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from components.corpus.schemas import Reason
from components.errors import InputError
from components.judge.heads import HeadConfig, load_head

WIDTH = 6
EMBEDDINGS = np.random.default_rng(0).standard_normal((5, WIDTH)).astype(np.float32)
LINEAR = torch.nn.Linear(WIDTH, 1, bias=True)


@pytest.fixture
def linear(tmp_path):
    path = tmp_path / "aesthetic.safetensors"
    save_file({"layers.weight": LINEAR.weight.detach(), "layers.bias": LINEAR.bias.detach()}, path)
    return path


@pytest.fixture
def onnx_file(tmp_path):
    from onnx import TensorProto, helper, numpy_helper, save_model

    weight = numpy_helper.from_array(LINEAR.weight.detach().numpy().T.copy(), "w")
    bias = numpy_helper.from_array(LINEAR.bias.detach().numpy(), "b")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Add", ["y", "b"], ["z"])],
        "head",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 1])],
        [weight, bias],
    )
    path = tmp_path / "aesthetic.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    save_model(model, path)
    return path


def test_a_linear_and_an_onnx_head_score_as_torch_does(linear, onnx_file):
    with torch.no_grad():
        wanted = LINEAR(torch.from_numpy(EMBEDDINGS)).squeeze(1).numpy()
    for path in (linear, onnx_file):
        scores = load_head("aesthetic", HeadConfig(path=str(path)))(EMBEDDINGS)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, wanted, atol=1e-5)
    probability = load_head("nsfw", HeadConfig(path=str(linear), activation="sigmoid"))(EMBEDDINGS)
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-wanted)), atol=1e-5)


def test_each_head_rejects_by_its_own_reason_and_threshold():
    head = HeadConfig(path="h.onnx", at_least=0.2, at_most=0.8)
    assert head.rejection("nsfw", 0.2) is None and head.rejection("nsfw", 0.8) is None
    names = {"aesthetic": "aesthetic", "nsfw": "nsfw", "watermark": "watermark", "cuteness": "head_score"}
    for name, reason in names.items():
        above = head.rejection(name, 0.9)
        assert above is not None and above.reason is Reason(reason)
        assert above.detail == f"{name} 0.900, at most 0.8 allowed"
    below = head.rejection("aesthetic", 0.1)
    assert below is not None and below.detail == "aesthetic 0.100, at least 0.2 wanted"
    assert head.rejection("nsfw", float("nan")) is not None, "no score is no pass"


def test_what_is_no_head_or_for_another_judge_is_one_line(linear, onnx_file, tmp_path):
    for path in (linear, onnx_file):
        head = load_head("nsfw", HeadConfig(path=str(path)))
        with pytest.raises(InputError, match=r"head 'nsfw' .* for embeddings of 6 values, .* have 4;"):
            head(EMBEDDINGS[:, :4])
    torn, two, text = tmp_path / "torn.onnx", tmp_path / "two.safetensors", tmp_path / "head.pt"
    torn.write_bytes(onnx_file.read_bytes()[:40])
    save_file({"a.weight": torch.ones(1, 6), "b.weight": torch.ones(1, 6)}, two)
    text.write_bytes(b"")
    for path, wanted in (
        (torn, "no ONNX network"),
        (two, r"one weight \(1, D\)"),
        (text, "must end in .safetensors or .onnx"),
        (tmp_path / "absent.onnx", "No such file"),
    ):
        with pytest.raises(InputError, match=wanted):
            load_head("nsfw", HeadConfig(path=str(path)))


def test_a_pinned_head_is_another_config_once_its_file_changes(linear):
    pinned = HeadConfig(path=str(linear)).pinned()
    assert load_head("a", pinned)(EMBEDDINGS).shape == (5,)
    save_file({"weight": torch.ones(6)}, linear)
    assert HeadConfig(path=str(linear)).pinned() != pinned
    with pytest.raises(InputError, match="its sha256 is"):
        load_head("a", pinned)
    with pytest.raises(ValidationError, match="nothing is between"):
        HeadConfig(path="h.onnx", at_least=1, at_most=0)
