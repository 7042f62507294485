"""Pretrained autoencoders of diffusers: the pipelines' latents, and nothing else loaded in their place."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.conditioning.autoencoder import load_autoencoder
from components.conditioning.config import AutoencoderConfig
from components.conditioning.diffusers_autoencoder import (
    FOLDER,
    DiffusersAutoencoder,
    load_diffusers_autoencoder,
)
from components.errors import InputError
from tests.small_autoencoders import SCALE, SHIFT, save_kl, small_dc, small_kl, small_tiny

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)


@pytest.fixture(scope="module")
def kl(tmp_path_factory) -> Path:
    return Path(save_kl(tmp_path_factory.mktemp("kl")))


def test_latents_and_images_are_those_of_diffusers_pipelines(kl, images):
    """x -> (mode - shift) · scale, and back (StableDiffusion3Pipeline)."""
    ours, theirs = DiffusersAutoencoder.load(str(kl)), small_kl().eval()
    assert (ours.channels, ours.downscale) == (4, 4)
    with torch.no_grad():
        latents = (theirs.encode(images).latent_dist.mode() - SHIFT) * SCALE
        decoded = theirs.decode(latents / SCALE + SHIFT).sample
    assert latents.shape == (3, 4, 4, 4)
    torch.testing.assert_close(ours.encode(images), latents)
    torch.testing.assert_close(ours.decode(latents), decoded)


def test_scaling_by_channel_is_applied_where_the_config_has_it(tmp_path, images):
    mean, std = [0.1, -0.2, 0.3, 0.0], [0.5, 1.0, 2.0, 4.0]
    path = save_kl(tmp_path, latents_mean=mean, latents_std=std)
    ours, theirs = DiffusersAutoencoder.load(path), small_kl().eval()
    with torch.no_grad():
        raw = theirs.encode(images).latent_dist.mode()
    by_channel = [torch.tensor(x).view(1, 4, 1, 1) for x in (mean, std)]
    latents = (raw - by_channel[0]) * SCALE / by_channel[1]
    torch.testing.assert_close(ours.encode(images), latents)
    torch.testing.assert_close(ours.decode(latents), theirs.decode(raw).sample.detach())


@pytest.mark.parametrize("make", [small_dc, small_tiny])
def test_other_autoencoders_of_images_serve_as_well(tmp_path, images, make):
    theirs = make().eval()
    theirs.save_pretrained(tmp_path)
    ours = DiffusersAutoencoder.load(str(tmp_path))
    with torch.no_grad():
        output = theirs.encode(images)
        latents = (
            output.latent if hasattr(output, "latent") else output.latents
        ) * theirs.config.scaling_factor
        decoded = theirs.decode(latents / theirs.config.scaling_factor).sample
    assert (ours.channels, ours.downscale) == (4, 2) and latents.shape == (3, 4, 8, 8)
    torch.testing.assert_close(ours.encode(images), latents)
    torch.testing.assert_close(ours.decode(latents), decoded)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_image_s_latents_are_the_same_bits_beside_any_other_and_under_autocast(kl, images, dtype):
    ours = load_diffusers_autoencoder(AutoencoderConfig(model=str(kl), dtype=dtype))
    together = ours.encode(images)
    assert together.dtype == torch.float32
    assert torch.equal(together, together.to(getattr(torch, dtype)).float())  # nothing is lost when stored
    for row in range(len(images)):
        assert torch.equal(ours.encode(images[row : row + 1]), together[row : row + 1])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours.encode(images), together)
        again = ours.decode(together)
    assert torch.equal(ours.decode(together[1:2]), again[1:2]) and again.dtype == torch.float32


def test_it_travels_with_the_model(kl, tmp_path, images):
    source = tmp_path / "source"
    shutil.copytree(kl, source)
    config = AutoencoderConfig(model=str(source), dtype="bfloat16")
    ours = load_diffusers_autoencoder(config)
    latents, identity = ours.encode(images), ours.identity
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        ours.save(tmp_path / name)
    shutil.rmtree(source)
    loaded = load_autoencoder(config, tmp_path / "one")
    assert torch.equal(loaded.encode(images), latents) and loaded.identity == identity
    saved = [{p.name: p.read_bytes() for p in (tmp_path / n / FOLDER).iterdir()} for n in ("one", "two")]
    assert saved[0] == saved[1] and str(tmp_path).encode() not in saved[0]["config.json"]


def test_a_whole_pipeline_s_is_found_in_it(kl, tmp_path):
    shutil.copytree(kl, tmp_path / "vae")
    assert DiffusersAutoencoder.load(str(tmp_path)).identity == DiffusersAutoencoder.load(str(kl)).identity


def test_of_an_id_the_commit_is_known_and_no_more_is_downloaded_than_is_read(kl, tmp_path, monkeypatch):
    downloads = []

    def snapshot_download(model: str, revision: str | None, allow_patterns: list[str]) -> str:
        wanted = [path.name for path in kl.iterdir() if any(map(path.match, allow_patterns))]
        downloads.append((model, revision, sorted(wanted)))
        return str(shutil.copytree(kl, tmp_path / "snapshots" / "c0ffee"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    stored = DiffusersAutoencoder.load("some/vae", "main").stored(16)
    assert downloads == [("some/vae", "main", ["config.json", WEIGHTS])]
    assert (stored.model, stored.revision) == ("some/vae", "c0ffee")
    assert stored.same_features(DiffusersAutoencoder.load(str(kl)).stored(16))


def test_other_weights_scaling_or_precision_are_another_identity(kl, tmp_path):
    ours = DiffusersAutoencoder.load(str(kl))
    others = [DiffusersAutoencoder.load(save_kl(tmp_path / "scaled", scaling_factor=1.0))]
    others.append(DiffusersAutoencoder.load(str(kl), dtype="bfloat16"))
    changed = shutil.copytree(kl, tmp_path / "changed")
    state = load_file(changed / WEIGHTS)
    state["encoder.conv_in.bias"][0] += 1e-3
    save_file(state, changed / WEIGHTS)
    others.append(DiffusersAutoencoder.load(str(changed)))
    assert len({ours.identity, *(other.identity for other in others)}) == 4
    copy = DiffusersAutoencoder.load(str(shutil.copytree(kl, tmp_path / "copy")))
    assert copy.stored(16).same_features(ours.stored(16)) and copy.stored(16) != ours.stored(16)
    assert not ours.stored(16).same_features(ours.stored(32))
    assert not any(ours.stored(16).same_features(other.stored(16)) for other in others)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def damage(folder: Path, how: str) -> None:
    weights, config = folder / WEIGHTS, folder / "config.json"
    settings = json.loads(config.read_text())
    if how == "pickle":
        weights.unlink()
        (folder / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Trap(folder / "executed")))
    elif how == "torn":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how == "offsets":
        weights.write_bytes(weights.read_bytes().replace(b"[0,", b"[4,", 1))
    elif how == "class":
        config.write_text(json.dumps({**settings, "_class_name": "UNet2DModel"}))
    elif how == "code":
        config.write_text(json.dumps({**settings, "_class_name": "os.system"}))
    elif how == "video":
        config.write_text(json.dumps({**settings, "in_channels": 12}))
    elif how == "nothing":
        shutil.rmtree(folder)
    else:
        state = load_file(weights)
        name = "encoder.conv_in.weight"
        if how == "missing":
            del state[name]
        else:
            state[name] = {"nan": state[name] * torch.nan, "shape": state[name][:2].clone()}[how]
        save_file(state, weights)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nothing", "is neither a folder nor a model of the hub"),
        ("pickle", "cannot be loaded"),
        ("torn", "cannot be loaded"),
        ("offsets", "cannot be loaded"),
        ("class", r"names no Autoencoder but 'UNet2DModel'"),
        ("code", r"names no Autoencoder but 'os.system'"),
        ("video", "cannot be loaded"),
        ("missing", r"lacks 1 of the weights, such as encoder\.conv_in\.weight"),
        ("shape", "cannot be loaded"),
        ("nan", r"weights 'encoder\.conv_in\.weight' are not finite"),
    ],
)
def test_a_hostile_or_damaged_one_is_refused_in_one_line(kl, tmp_path, how, message):
    folder = tmp_path / "vae-of-another"
    shutil.copytree(kl, folder)
    damage(folder, how)
    with pytest.raises(InputError, match=message) as caught:
        DiffusersAutoencoder.load(str(folder))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    assert not (folder / "executed").exists()
