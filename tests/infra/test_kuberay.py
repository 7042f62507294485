"""The manifests: valid by Kubernetes' schemas and by KubeRay's fields, and one cluster in both of them.

KubeRay's own CRDs (2 MB) are not in this repository: KUBERAY_CRDS names a folder of them, such as
helm-chart/kuberay-operator/crds of its sources, and then the manifests are checked against these, too.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

KUBERAY = Path(__file__).resolve().parents[2] / "infra" / "kuberay"
LOCK = KUBERAY.parent / "requirements" / "cluster.txt"
KUBERNETES = "1.31"
NAMED = {"raycluster.yaml": "rayclusters", "rayjob.yaml": "rayjobs"}


class Fields(BaseModel):
    """Fields of KubeRay 1.6's v1 API; one that is not named here is refused."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True)


class AuthOptions(Fields):
    mode: Literal["token"]
    secret_name: str


class HeadGroup(Fields):
    ray_start_params: dict[str, str]
    template: dict[str, Any]


class WorkerGroup(HeadGroup):
    group_name: str
    replicas: Annotated[int, Field(ge=0)]
    min_replicas: Annotated[int, Field(ge=0)]
    max_replicas: Annotated[int, Field(ge=1)]


class ClusterSpec(Fields):
    ray_version: str
    auth_options: AuthOptions
    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup]


class JobSpec(Fields):
    entrypoint: str
    entrypoint_num_cpus: int
    entrypoint_num_gpus: int
    backoff_limit: int
    submission_mode: Literal["K8sJobMode"]
    shutdown_after_job_finishes: bool
    ttl_seconds_after_finished: int
    active_deadline_seconds: int
    submitter_pod_template: dict[str, Any]
    ray_cluster_spec: ClusterSpec


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((KUBERAY / name).read_text())


def cluster_spec() -> dict[str, Any]:
    return load("raycluster.yaml")["spec"]


def templates() -> list[dict[str, Any]]:
    """Every pod's template; the job's cluster is the same one."""
    spec = cluster_spec()
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [*(group["template"] for group in groups), load("rayjob.yaml")["spec"]["submitterPodTemplate"]]


def test_custom_resources_have_only_fields_of_kuberay():
    for name, model in (("raycluster.yaml", ClusterSpec), ("rayjob.yaml", JobSpec)):
        manifest = load(name)
        assert manifest["apiVersion"] == "ray.io/v1"
        model.model_validate(manifest["spec"])


@pytest.mark.parametrize("name", ["networkpolicy.yaml", "token-secret.example.yaml"])
def test_kubernetes_own_kinds_are_valid(name):
    kubernetes_validate.validate(load(name), KUBERNETES, strict=True)


def test_pods_are_valid_and_run_without_privileges():
    for template in templates():
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert not pod["spec"]["automountServiceAccountToken"]
        for container in pod["spec"]["containers"]:
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert container["resources"]["limits"]["memory"]


def test_the_policy_covers_every_node_and_lets_the_submitter_in():
    policy = load("networkpolicy.yaml")["spec"]
    nodes, submitter = templates()[:-1], templates()[-1]
    for template in nodes:
        assert template["metadata"]["labels"].items() >= policy["podSelector"]["matchLabels"].items()
    let_in = [peer["podSelector"]["matchLabels"] for rule in policy["ingress"] for peer in rule["from"]]
    assert submitter["metadata"]["labels"] in let_in


def test_job_and_cluster_are_one_and_have_the_images_ray_and_the_secrets_token():
    spec = cluster_spec()
    assert load("rayjob.yaml")["spec"]["rayClusterSpec"] == spec
    assert f"\nray=={spec['rayVersion']} " in LOCK.read_text().replace("[default]", "")
    secret = load("token-secret.example.yaml")
    assert spec["authOptions"]["secretName"] == secret["metadata"]["name"]
    assert secret["stringData"] == {"auth_token": ""}  # an example holds no token that somebody keeps


@pytest.mark.parametrize("name", NAMED)
def test_custom_resources_are_valid_by_kuberays_crds(name):
    folder = os.environ.get("KUBERAY_CRDS")
    if not folder:
        pytest.skip("KUBERAY_CRDS names no folder of KubeRay's CRDs")
    text = (Path(folder) / f"ray.io_{NAMED[name]}.yaml").read_text()
    definition = yaml.load(
        text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    )  # in C: seconds, not minutes
    (version,) = [entry for entry in definition["spec"]["versions"] if entry["name"] == "v1"]
    schema = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # which a CRD leaves to Kubernetes
    jsonschema.validate(load(name), schema)


def closed(schema: Any) -> Any:
    """The schema with unknown fields refused, as `kubectl apply --validate=strict` does."""
    if isinstance(schema, dict):
        open_ended = schema.get("additionalProperties") or schema.get("x-kubernetes-preserve-unknown-fields")
        inner = {key: closed(value) for key, value in schema.items()}
        is_object = isinstance(schema.get("properties"), dict) and not open_ended
        return {**inner, "additionalProperties": False} if is_object else inner
    return [closed(entry) for entry in schema] if isinstance(schema, list) else schema
