"""The image: what its DEVICE installs, and that its file agrees with what the project pins."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "infra" / "Dockerfile").read_text()
CLUSTER = (ROOT / "infra" / "requirements" / "cluster.txt").read_text()
PIN = re.compile(r"^([a-z0-9._-]+)(?:\[[a-z,]+\])?==([^\s;]+)", re.MULTILINE)


def split(tmp_path: Path, device: str) -> tuple[dict[str, str], dict[str, str], str]:
    """Pins with hashes, pins without, and the text of the former."""
    script = ROOT / "infra" / "docker" / "requirements_of.py"
    lock = ROOT / "infra" / "requirements" / "cluster.txt"
    outputs = [tmp_path / "hashed.txt", tmp_path / "unhashed.txt"]
    subprocess.run([sys.executable, script, device, lock, *outputs], check=True)
    hashed, unhashed = (path.read_text() for path in outputs)
    return dict(PIN.findall(hashed)), dict(PIN.findall(unhashed)), hashed


def test_with_cuda_the_whole_lock_is_installed_by_hash(tmp_path):
    hashed, unhashed, text = split(tmp_path, "cuda")
    assert text == CLUSTER
    assert hashed.keys() >= {"torch", "torchvision", "dagster-postgres", "boto3", "py-spy"}
    assert not unhashed


def test_with_cpu_only_the_pair_comes_without_hashes_and_no_cuda_library_comes(tmp_path):
    pins = dict(PIN.findall(CLUSTER))
    hashed, unhashed, text = split(tmp_path, "cpu")
    assert unhashed == {name: pins[name] for name in ("torch", "torchvision")}
    left_out = pins.keys() - hashed.keys() - unhashed.keys()
    assert len(left_out) > 10
    assert all(name.startswith(("nvidia-", "cuda-")) or name == "triton" for name in left_out)
    for entry in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in entry, entry


def test_another_device_is_refused():
    script = ROOT / "infra" / "docker" / "requirements_of.py"
    done = subprocess.run(
        [sys.executable, script, "tpu", __file__], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "DEVICE 'tpu' is none of cuda, cpu" in done.stderr


def test_the_images_versions_are_those_of_the_tests():
    lock = dict(PIN.findall((ROOT / "infra" / "requirements" / "lock.txt").read_text()))
    ours = dict(PIN.findall(CLUSTER))
    assert {name: version for name, version in ours.items() if name in lock} == {
        name: version for name, version in lock.items() if name in ours
    }


def test_the_image_runs_as_nobody_special_with_the_makefiles_uv():
    (uv,) = re.findall(r"^UV_VERSION := (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f"\nARG UV={uv}\n" in DOCKERFILE
    final = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert re.findall(r"^USER (\S+)", final, re.MULTILINE) == ["1000:1000"]


def test_what_is_copied_is_there_and_not_ignored():
    allowed = [
        line[1:]
        for line in (ROOT / "infra" / "Dockerfile.dockerignore").read_text().splitlines()
        if line[:1] == "!"
    ]
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
        if not source.startswith("--")
    ]
    assert len(copied) > 5
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(source == entry or source.startswith(f"{entry}/") for entry in allowed), source


def test_a_node_of_ray_refuses_to_start_without_a_token():
    script = ROOT / "infra" / "docker" / "ray-node"
    done = subprocess.run([script, "head"], env={"PATH": "/bin"}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "RAY_AUTH_TOKEN" in done.stderr
