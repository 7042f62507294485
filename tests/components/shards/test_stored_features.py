"""Precomputed features in tars: exact, deterministic, never unpickled, and read for what they are only."""

import io
import json
import zipfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from components.conditioning.identity import FeatureIdentity
from components.errors import InputError
from components.shards.blend import Blend
from components.shards.index import load_index
from components.shards.loader import ShardLoader
from components.shards.stored_features import (
    Features,
    features_of,
    pack_latent,
    pack_texts,
    unpack_latent,
    unpack_text,
    usable,
)
from components.shards.writer import LATENT_EXTENSION, TEXT_EXTENSION

KL = FeatureIdentity(model="some/vae", revision="c0ffee", digest="a" * 64, dtype="float32", size=8)
T5 = FeatureIdentity(model="some/t5", revision=None, digest="b" * 64, dtype="bfloat16", size=16)


def latent_of(key: str) -> torch.Tensor:
    return torch.full((2, 2, 2), int(key[:4], 16) / 7)


def text_of(key: str, kind: str) -> torch.Tensor:
    return torch.full((len(kind), 3), int(key[:2], 16) / 4)


def features_for(sample) -> dict[str, bytes]:
    texts = {kind: text_of(sample.key, kind) for kind in ("alt", "short", "long")}
    latent = pack_latent(latent_of(sample.key), KL.dtype)
    return {LATENT_EXTENSION: latent, TEXT_EXTENSION: pack_texts(texts, T5.dtype)}


@pytest.fixture
def index(make_shards) -> Path:
    return make_shards([9, 5, 2], features_for=features_for, latents=KL, texts=T5)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_features_come_back_exactly_in_their_own_precision_and_the_same_bytes(dtype):
    values = torch.randn(3, 4, 5).to(getattr(torch, dtype)).float()
    data = pack_latent(values, dtype)
    assert torch.equal(unpack_latent(data, dtype, "here"), values) and data == pack_latent(values, dtype)
    assert len(data) == 128 + values.numel() * (4 if dtype == "float32" else 2)
    texts = {"short": values[0], "long": values[1, :2]}
    packed = pack_texts(texts, dtype)
    assert packed == pack_texts(texts, dtype)
    for kind, expected in texts.items():
        assert torch.equal(unpack_text(packed, kind, dtype, "here"), expected)


@pytest.mark.parametrize("cache_mb", [64, 0], ids=["cached", "streaming"])
def test_the_loader_reads_stored_features_of_what_it_would_decode_and_draw(index, cache_mb):
    settings = {"batch_size": 4, "image_size": 8, "seed": 5, "blend": Blend(), "cache_mb": cache_mb}
    computing = ShardLoader([index], **settings)
    reading = computing.reading(latents=True, texts=True)
    assert computing.reading(latents=False, texts=False) is computing
    for plain, stored in zip(islice(computing.batches(8), 12), reading.batches(8), strict=False):
        assert (stored.keys, stored.captions, stored.epochs) == (plain.keys, plain.captions, plain.epochs)
        assert plain.latents is None and plain.texts is None and stored.images.size == 0
        assert torch.equal(stored.latents, torch.stack([latent_of(key) for key in stored.keys]))
        for key, kind, text in zip(stored.keys, stored.kinds, stored.texts, strict=True):
            assert torch.equal(text, text_of(key, kind))
    (batch,) = islice(computing.reading(latents=False, texts=True).batches(), 1)
    assert batch.images.shape == (4, 8, 8, 3) and batch.latents is None and len(batch.texts) == 4


def test_the_index_says_what_made_them_and_without_any_is_as_it_was(index, make_shards):
    assert (load_index(index).latents, load_index(index).texts) == (KL, T5)
    plain = make_shards([3], name="plain").read_text()
    assert set(json.loads(plain)) == {"version", "shards"}


def changed(identity: FeatureIdentity, **fields) -> FeatureIdentity:
    return identity.model_copy(update=fields)


def test_they_are_read_where_they_are_those_wanted_wherever_the_model_was():
    stored = Features(KL, T5)
    assert usable(stored, Features(changed(KL, model="/a/copy", revision=None), T5)) == (True, True)
    assert usable(stored, Features(None, T5)) == (False, True)  # it trains on pixels
    assert usable(Features(), stored) == (False, False)
    for field, value in (("digest", "c" * 64), ("dtype", "float16"), ("size", 16)):
        with pytest.raises(
            InputError, match=r"the latents in the shards are of some/vae@c0ffee \("
        ) as caught:
            usable(stored, Features(changed(KL, **{field: value}), None))
        assert "\n" not in str(caught.value) and "shard.latents" in str(caught.value)
    with pytest.raises(InputError, match=r"the texts in the shards .* and train\.text is some/t5 "):
        usable(stored, Features(None, changed(T5, size=17)))


def test_snapshots_with_other_features_are_no_training_set(index, make_shards):
    other = make_shards([3], name="b", features_for=features_for, latents=changed(KL, size=9), texts=T5)
    none = make_shards([3], name="c")
    assert features_of([index, index]) == Features(KL, T5)
    for path in (other, none):
        with pytest.raises(InputError, match=rf"{path}: its latents are of (some/vae|no encoder)"):
            ShardLoader([index, path], batch_size=4, image_size=8, seed=0, blend=Blend())


def test_what_the_index_promises_and_a_tar_lacks_is_one_line(make_shards):
    index = make_shards([4], latents=KL, texts=T5)
    loader = ShardLoader([index], batch_size=4, image_size=8, seed=0, blend=Blend())
    with pytest.raises(InputError, match=r"train-00000\.tar: sample \w+ has no latent\.npy") as caught:
        next(loader.reading(latents=True, texts=False).batches())
    assert "\n" not in str(caught.value)


def npz(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    "data", [b"", b"\x93NUMPY", b"PK", npy(np.array([{}], object)), npy(np.zeros(3)), npz(alt=b"")]
)
def test_hostile_features_are_one_line_and_nothing_in_them_is_unpickled(data):
    with pytest.raises(InputError, match="here: its latents cannot be read"):
        unpack_latent(data, "float32", "here")
    for file in (data, npz(alt=data)):
        with pytest.raises(
            InputError, match="here: the features of its caption 'alt' cannot be read"
        ) as caught:
            unpack_text(file, "alt", "float32", "here")
        assert "\n" not in str(caught.value)
