"""The registered model, served over HTTP, draws what the Generator draws; so does one from a server."""

import ast
import base64
import importlib.metadata
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.generation.generator import Generator
from components.provenance.credentials import find_credentials
from components.provenance.verification import examine
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_registry import Registry, resolve
from pipelines.registry.packaging import COMPONENTS, REQUIRED, SERVED_CODE
from pipelines.registry.repair import inspect
from pipelines.store.local import LocalStore
from pipelines.store.receipts import RECEIPT, Counts, FileEntry, Receipt, sha256_file, write_receipt
from tests.pipelines.make_champion import make_champion
from tests.small_model import PROMPTS, write_small_model

START_SECONDS = 120  # for a server to come up on a machine that does other things


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("made") / "model")


def register(tracker: Tracker, folder: Path) -> Registry:
    registry = Registry(tracker)
    with tracker.run("promote", "f") as run:
        version = registry.register(folder, "digest", run, steps=1, tags={})
    make_champion(registry, version.version)
    return registry


@pytest.fixture(scope="module")
def served(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of models:/straightshot@champion."""
    home = tmp_path_factory.mktemp("home")
    tracker = Tracker(home, f"sqlite:///{home}/mlflow.db")
    register(tracker, model_folder)
    command = ["models", "serve", "-m", "models:/straightshot@champion", "--env-manager", "local"]
    with running(command, tracker.uri, "ping", home) as address:
        yield address


@contextmanager
def running(command: list[str], uri: str, ready: str, folder: Path) -> Iterator[str]:
    """`mlflow COMMAND` on a free port of loopback; the address, once `ready` answers there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    scripts = Path(sys.executable).parent
    settings = {
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # four more processes, each importing all of MLflow
        "OMP_NUM_THREADS": "1",
    }
    path = f"{scripts}{os.pathsep}{os.environ['PATH']}"  # mlflow starts `uvicorn` by name
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [scripts / "mlflow", *command, "-h", "127.0.0.1", "-p", str(port)],
            env={**os.environ, **settings, "PATH": path},
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/{ready}", process, log)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def ask(address: str, prompts: list, **params: object) -> tuple[int, dict]:
    """Status and answer of one request."""
    frame = {"columns": ["prompt"], "data": [[prompt] for prompt in prompts]}
    body = json.dumps({"dataframe_split": frame, "params": params}).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{address}/invocations", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_served_model_answers_with_the_generators_images(served, model_folder):
    generator = Generator.load(model_folder)
    for params in ({"seed": 7, "upsample": False}, {"seed": 7}, {"seed": 7, "steps": 2}, {}):
        status, answer = ask(served, PROMPTS, **params)
        assert status == 200, answer
        pngs = [base64.b64decode(row["image"]) for row in answer["predictions"]]
        assert {examine(png, "image/png", find_credentials()).verdict for png in pngs} == {"ours"}
        images = np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in pngs])
        seed, captions = params.get("seed", 0), PROMPTS
        if params.get("upsample", True):
            captions = [prompt.caption for prompt in generator.upsample(PROMPTS, seed=seed)]
        assert [row["caption"] for row in answer["predictions"]] == captions
        assert images.shape == (2, 16, 16, 3)
        expected = generator.generate(captions, seed=seed, steps=params.get("steps", 1))
        assert np.array_equal(images, expected)
    assert captions != PROMPTS
    assert not np.array_equal(expected, generator.generate(captions, seed=7))


@pytest.mark.parametrize(
    ("prompts", "params", "says"),
    [
        (PROMPTS, {"steps": 0}, "steps is 0; it must be 1 to 1000"),
        (PROMPTS, {"steps": "many"}, "steps"),
        (PROMPTS, {"guidance": 9.0}, "absorbed guidance 3"),
        ([""], {}, "prompt 0 is empty"),
        (["a red circle", None], {}, "prompt 1 is empty"),
        ([], {}, "0 prompts in one request; send 1 to 256"),
        (["a red circle"] * 257, {}, "257 prompts in one request"),
    ],
)
def test_a_bad_request_is_answered_with_what_is_wrong(served, prompts, params, says):
    status, answer = ask(served, prompts, **params)
    assert status == 400
    assert says in answer["message"]


def test_a_registry_on_a_server_serves_the_same_model(model_folder, tmp_path):
    places = ["--backend-store-uri", "sqlite:///server.db", "--artifacts-destination", "artifacts"]
    home = tmp_path / "home"
    with running(["server", "--workers", "1", *places], "", "health", tmp_path) as address:
        registry = register(Tracker(home, address), model_folder)
        fetched = resolve("champion", home, address)
        assert fetched.is_relative_to(home / "models")
        assert [v.version for v in registry.versions()] == ["1"]
        weights = fetched / "model.safetensors"
        assert weights.read_bytes() == (model_folder / "model.safetensors").read_bytes()
        assert resolve("champion", home, address) == fetched
        output = home / "distill/made"
        shutil.copytree(model_folder, output / "model")
        write_output_receipt(output)
        (stored,) = (tmp_path / "artifacts").rglob("artifacts/model/model.safetensors")
        stored.write_bytes(b"damaged")
        (found,) = inspect(home, address)
        assert found.damaged == ("artifacts/model/model.safetensors",)
        (repaired,) = inspect(home, address, repair=True)
        assert repaired.restored == found.damaged and stored.read_bytes() == weights.read_bytes()
    assert not (home / "mlflow.db").exists()


def write_output_receipt(output: Path) -> None:
    """Of distill's output that lies there, as far as a repair reads it."""
    files = tuple(
        FileEntry(
            path=path.relative_to(output).as_posix(), bytes=path.stat().st_size, sha256=sha256_file(path)
        )
        for path in output.rglob("*")
        if path.is_file()
    )
    receipt = Receipt(
        stage="distill",
        version=1,
        snapshot="all",
        fingerprint=output.name,
        config={},
        inputs={},
        input_fingerprints={},
        libraries={},
        counts=Counts(),
        reasons={},
        info={},
        files=files,
        digest="",
        seconds=1.0,
        peak_rss_mb=1.0,
        finished_at="2026-11-20T10:00:00+00:00",
    )
    write_receipt(LocalStore(output), RECEIPT, receipt)


def test_the_packaged_requirements_cover_every_import_of_the_served_code():
    seen, third_party, waiting = set(), set(), [SERVED_CODE]
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for name in imported(path):
            if name.split(".")[0] == "components":
                module = COMPONENTS.joinpath(*name.split(".")[1:]).with_suffix(".py")
                waiting += [module] if module not in seen else []
            elif name.split(".")[0] not in sys.stdlib_module_names:
                third_party.add(name.split(".")[0])
    assert COMPONENTS / "diffusion" / "dit.py" in seen
    distributions = importlib.metadata.packages_distributions()
    missing = {name for name in third_party if not set(map(normalised, distributions[name])) & set(REQUIRED)}
    assert missing == set()


def normalised(distribution: str) -> str:
    """One spelling of its name, as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def imported(path: Path) -> set[str]:
    """Names of the modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names
