"""compose.yaml: valid by the Compose Specification, refuses to start without secrets, loopback only."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

INFRA = Path(__file__).resolve().parents[2] / "infra"
FILES = ("compose.yaml", "compose.cuda.yaml")
VARIABLE = re.compile(
    r"\$(?:(\$)|\{(\w+)(?:(:[-?])([^}]*))?\})"
)  # $$, or ${NAME}, ${NAME:-value}, ${NAME:?why}


class Missing(Exception):
    """A variable that a compose file demands is not set, or empty."""


def interpolate(text: str, environment: dict[str, str]) -> str:
    """As the specification says, for the forms that our files use. Raises Missing."""

    def value(match: re.Match[str]) -> str:
        dollar, name, operator, argument = match.groups()
        if dollar:
            return "$"
        if environment.get(name):
            return environment[name]
        if operator == ":?":
            raise Missing(f"{name}: {argument}")
        return argument or ""

    code = "".join(re.sub(r"^\s*#.*", "", line) for line in text.splitlines(keepends=True))
    return VARIABLE.sub(value, code)


def example() -> dict[str, str]:
    lines = (INFRA / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled() -> dict[str, str]:
    return {name: value or f"word{number}" for number, (name, value) in enumerate(example().items())}


def load(name: str) -> dict:
    return yaml.safe_load(interpolate((INFRA / name).read_text(), filled()))


def test_it_refuses_to_start_while_a_secret_of_the_example_is_empty():
    text = (INFRA / "compose.yaml").read_text()
    secrets = [name for name, value in example().items() if not value]
    assert len(secrets) == 7
    for name in secrets:
        with pytest.raises(Missing, match=rf"^{name}: .*infra/\.env"):
            interpolate(text, {**filled(), name: ""})
    named = {name for _, name, *_ in VARIABLE.findall(text) if name}
    assert named == {*example(), "SEAWEEDFS_VERSION"}


@pytest.mark.parametrize("name", FILES)
def test_it_is_valid_by_the_specification(name):
    compose_spec = pytest.importorskip("compose_spec")
    document = load(name)  # its aliases are resolved by YAML, and compose_spec knows no merge key
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(document)).validate()
    for service in document["services"].values():
        wrong = {**document, "services": {"a": {**service, "no_such_field": 1}}}
        with pytest.raises(ValueError, match="no_such_field"):
            compose_spec.PyCompose.from_yaml(yaml.safe_dump(wrong))


def test_every_port_is_published_on_loopback():
    ports = [
        port for service in load("compose.yaml")["services"].values() for port in service.get("ports", [])
    ]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_service_waits_for_what_it_needs_and_tells_whether_it_works():
    services = load("compose.yaml")["services"]
    for name, service in services.items():
        assert "healthcheck" in service or service["restart"] == "no", name
        for needed, how in service.get("depends_on", {}).items():
            assert "healthcheck" in services[needed] or how["condition"] == "service_completed_successfully"
    networks = {name: set(service.get("networks", ["default"])) for name, service in services.items()}
    for name, service in services.items():
        for needed in service.get("depends_on", {}):
            assert networks[name] & networks[needed], f"{name} cannot reach {needed}"


def test_every_node_of_ray_asks_for_the_token_and_has_shared_memory():
    for name in ("ray-head", "ray-worker", "dagster-daemon"):
        service = load("compose.yaml")["services"][name]
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN"] == filled()["RAY_AUTH_TOKEN"]
        assert service["shm_size"]


def test_what_records_its_processes_keeps_its_name_when_its_container_is_made_anew():
    assert load("compose.yaml")["services"]["dagster-daemon"]["hostname"] == "dagster-daemon"


def test_the_scripts_in_it_are_sound():
    contents = {name: config["content"] for name, config in load("compose.yaml")["configs"].items()}
    compile(contents["bucket"], "make_bucket.py", "exec")
    subprocess.run(["bash", "-n"], input=contents["databases"], text=True, check=True)
    (identity,) = yaml.safe_load(contents["s3"])["identities"]  # JSON is YAML
    assert identity["credentials"] == [
        {"accessKey": filled()["S3_ACCESS_KEY"], "secretKey": filled()["S3_SECRET_KEY"]}
    ]
