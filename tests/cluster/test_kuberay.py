"""The manifests: valid against the CRDs with unknown keys refused, and true to configs/production.yaml."""

import copy
import shlex
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import ray
import yaml
from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

from cluster.needs import Room, check, serving, training
from configs import load
from pipelines.layout import Layout
from serving import haproxy
from serving.app import AppArgs, ModelArgs
from serving.document import serve_document
from tests.cluster.crds import errors

FOLDER = Path(__file__).parents[2] / "cluster" / "kuberay"
MEMORY = {"Gi": 2**30}
DATABASE = "postgresql://llumi@postgres.databases.svc:5432/llumi?sslmode=require"


def manifest(name: str) -> dict[str, Any]:
    """One of the manifests, its aliases resolved into copies."""
    return document_of((FOLDER / name).read_text(encoding="utf-8"))


def document_of(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = copy.deepcopy(yaml.safe_load(text))
    return loaded


def typed(page: Path, beginning: str) -> list[str]:
    """The words of the command of a page that begins so."""
    return shlex.split(
        next(line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith(beginning))
    )


def cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    spec = document["spec"]
    found: dict[str, Any] = spec.get("rayClusterSpec") or spec["rayClusterConfig"]
    return found


def groups(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster_of(document)["headGroupSpec"], *cluster_of(document)["workerGroupSpecs"]]


def room(group: dict[str, Any]) -> Room:
    """What a group of workers holds at its largest."""
    asked = group["template"]["spec"]["containers"][0]["resources"]["requests"]
    memory = int(asked["memory"].removesuffix("Gi")) * 2**30
    resources = {"CPU": float(asked["cpu"]), "GPU": float(asked.get("nvidia.com/gpu", 0)), "memory": float(memory)}
    return Room(resources, group["maxReplicas"], group["groupName"], group["labels"])


def unknown_keys(value: Any, schema: type[BaseModel], path: str = "") -> list[str]:
    """Keys that a schema does not list, which ServeDeploySchema itself would take silently."""
    known = {field.alias or name: field for name, field in schema.model_fields.items()}
    found = [f"{path}{key}" for key in value if key not in known]
    for key, part in value.items():
        for option in inner_models(known[key].annotation) if key in known else []:
            parts = part if isinstance(part, list) else [part]
            found += [
                bad for item in parts if isinstance(item, dict) for bad in unknown_keys(item, option, f"{path}{key}.")
            ]
    return found


def inner_models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in inner_models(part)]


def with_feedback(folder: Path) -> dict[str, Any]:
    """The RayService after the command by which README turns the feedback store on."""
    copied = folder / "rayservice.yaml"
    copied.write_bytes((FOLDER / "rayservice.yaml").read_bytes())
    *command, edited = typed(FOLDER / "README.md", "sed -i ")
    assert Path(edited) == Path("cluster/kuberay/rayservice.yaml")
    subprocess.run([*command, copied], check=True)
    return document_of(copied.read_text(encoding="utf-8"))


@pytest.fixture(params=["rayjob.yaml", "rayservice.yaml", "rayservice.yaml with feedback"])
def document(request, tmp_path) -> dict[str, Any]:
    return with_feedback(tmp_path) if "feedback" in request.param else manifest(request.param)


def test_each_manifest_fits_its_crd(document):
    assert errors(document) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec.update(entrypont="x"),
        lambda spec: cluster(spec).update(headGroupSpecs={}),
        lambda spec: cluster(spec)["headGroupSpec"].update(rayStartParam={}),
        lambda spec: cluster(spec)["workerGroupSpecs"][0].update(minReplicas="two"),
        lambda spec: cluster(spec)["workerGroupSpecs"][0].pop("groupName"),
        lambda spec: cluster(spec)["autoscalerOptions"].update(version="v3"),
        lambda spec: cluster(spec)["gcsFaultToleranceOptions"].update(backend="sqlite"),
        lambda spec: cluster(spec)["networkPolicy"].update(mode="AllowAll"),
        lambda spec: cluster(spec)["headGroupSpec"]["template"]["spec"]["containers"][0].update(imagee="x"),
        lambda spec: cluster(spec)["headGroupSpec"]["template"]["spec"].update(securityContext={"runAsRoot": True}),
    ],
)
def test_a_misspelt_or_misfit_key_would_be_noticed(document, spoil):
    spoil(document["spec"])
    assert len(errors(document)) == 1


def cluster(spec: dict[str, Any]) -> dict[str, Any]:
    return cluster_of({"spec": spec})


def test_the_ray_of_the_manifests_and_the_image_is_the_one_installed(document):
    assert cluster_of(document)["rayVersion"] == ray.__version__
    assert f"FROM rayproject/ray:{ray.__version__}-py311-gpu" in (FOLDER / "Dockerfile").read_text(encoding="utf-8")


def test_the_image_is_that_of_our_version_and_the_same_everywhere(document):
    from pipelines.manifest import distribution_version

    images = {c["image"] for group in groups(document) for c in group["template"]["spec"]["containers"]}
    assert images == {f"registry.example.com/llumi:{distribution_version()}"}


def test_the_head_runs_no_tasks_and_each_group_names_its_pool(document):
    assert groups(document)[0]["rayStartParams"]["num-cpus"] == "0"
    pools = [group["labels"]["llumi/pool"] for group in groups(document)]
    assert pools in (["head", "data", "train"], ["head", "serve"])
    selected = load("production").cluster.pools
    assert selected.label == "llumi/pool"
    assert set(pools[1:]) <= {selected.data, selected.training, selected.serving}


def test_the_cluster_is_closed_and_asks_for_a_token(document):
    spec = cluster_of(document)
    assert spec["authOptions"]["mode"] == "token" and spec["authOptions"]["secretName"]
    assert spec["networkPolicy"]["mode"] == "DenyAll"
    rules = [spec["networkPolicy"][role]["egressRules"] for role in ("head", "worker")]
    assert all(53 in {port["port"] for rule in rule_set for port in rule["ports"]} for rule_set in rules)


def test_nothing_runs_as_root_or_may_become_it(document):
    for group in groups(document):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert all(c["securityContext"]["allowPrivilegeEscalation"] is False for c in pod["containers"])
    assert "USER 1000" in (FOLDER / "Dockerfile").read_text(encoding="utf-8")


def test_the_job_holds_the_training_and_goes_away_afterwards():
    job = manifest("rayjob.yaml")
    check([training(load("production"))], [room(group) for group in groups(job)[1:]])
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert job["spec"]["ttlSecondsAfterFinished"] > 0
    assert job["spec"]["submissionMode"] in {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"}
    assert "entrypointNumGpus" not in job["spec"]


def test_the_job_runs_a_command_that_exists_on_the_preset():
    words = manifest("rayjob.yaml")["spec"]["entrypoint"].split()
    assert words == ["llumi", "run", "production"]
    assert load(words[-1]) == load("production")


def test_the_job_mounts_what_the_preset_reads_and_writes():
    settings = load("production")
    mounts = {
        m["mountPath"] for m in groups(manifest("rayjob.yaml"))[-1]["template"]["spec"]["containers"][0]["volumeMounts"]
    }
    for path in (settings.output, *settings.corpus.posts, *settings.corpus.comments):
        assert any(Path(mount) in Path(path).parents for mount in mounts)


def test_the_service_holds_its_largest_number_of_replicas():
    settings = load("production")
    service = manifest("rayservice.yaml")
    largest = {name: {"min_replicas": getattr(settings.serving, name).max_replicas} for name in ("ingress", "gm", "im")}
    wanted = load(
        "production", [f"serving.{name}.min_replicas={part['min_replicas']}" for name, part in largest.items()]
    )
    rooms = [room(group) for group in groups(service)[1:]]
    check(serving(wanted), rooms)
    gpus = sum(need.count * need.each["GPU"] for need in serving(wanted))
    assert gpus <= sum(r.resources["GPU"] * (r.nodes or 0) for r in rooms)


def test_the_service_survives_the_loss_of_a_node():
    settings = load("production").serving
    assert min(settings.ingress.min_replicas, settings.gm.min_replicas, settings.im.min_replicas) >= 2
    assert groups(manifest("rayservice.yaml"))[1]["minReplicas"] >= 2


@pytest.mark.parametrize("feedback", [False, True])
def test_the_serve_document_is_valid_and_holds_no_unknown_key(feedback, tmp_path):
    service = with_feedback(tmp_path) if feedback else manifest("rayservice.yaml")
    written = yaml.safe_load(service["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(written)
    assert unknown_keys(written, ServeDeploySchema) == []
    written["applications"][0]["rout_prefix"] = "/"
    assert unknown_keys(written, ServeDeploySchema) == ["applications.rout_prefix"]


@pytest.mark.parametrize("feedback", [False, True])
def test_the_serve_document_is_what_serving_makes_of_the_preset(feedback, tmp_path):
    service = with_feedback(tmp_path) if feedback else manifest("rayservice.yaml")
    settings = load("production", [f"serving.feedback={{url: '{DATABASE}'}}"] if feedback else [])
    written = yaml.safe_load(service["spec"]["serveConfigV2"])
    made = serve_document(settings, host="0.0.0.0")
    for document in (written, made):
        for application in document["applications"]:
            kind = AppArgs if application["route_prefix"] else ModelArgs
            application["args"] = kind.model_validate(application["args"])
    assert written == made


def test_the_service_serves_what_the_job_leaves():
    applications = yaml.safe_load(manifest("rayservice.yaml")["spec"]["serveConfigV2"])["applications"]
    models = {name: path for part in applications for name, path in part["args"].get("models", {}).items()}
    layout = Layout(Path(load("production").output))
    assert models == {"gm": str(layout.model("gm")), "im": str(layout.model("im"))}


def test_with_feedback_every_pod_has_the_password_and_a_way_to_the_database(tmp_path):
    secret = typed(FOLDER / "README.md", "kubectl create secret generic llumi-feedback")
    name, key = secret[4], secret[5].removeprefix("--from-literal=").split("=")[0]
    database = urlsplit(DATABASE)
    way = {
        "to": [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": database.hostname.split(".")[1]}}}
        ],
        "ports": [{"protocol": "TCP", "port": database.port}],
    }
    reference = {"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}
    for service, on in ((with_feedback(tmp_path), True), (manifest("rayservice.yaml"), False)):
        policy = cluster_of(service)["networkPolicy"]
        assert [way in policy[role]["egressRules"] for role in ("head", "worker")] == [on, on]
        assert [reference in environment(group) for group in groups(service)] == [on, on]
    desk = manifest("desk.yaml")["spec"]["containers"][0]["env"]
    assert desk[0]["valueFrom"]["secretKeyRef"] == {"name": name, "key": key, "optional": True}


def environment(group: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = group["template"]["spec"]["containers"][0]["env"]
    return found


def test_haproxy_is_set_as_the_service_sets_it_by_itself():
    wanted = {
        haproxy.SWITCH: "1",
        "RAY_SERVE_HAPROXY_RETRY_ON": haproxy.RETRY_ON,
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(haproxy.BUFFER),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(haproxy.DRAIN_S),
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": str(haproxy.CHECKS_S),
    }
    for group in groups(manifest("rayservice.yaml")):
        given = {variable["name"]: variable.get("value") for variable in environment(group)}
        assert given.items() >= wanted.items()


def test_prometheus_reaches_the_metrics_of_every_pod_and_nothing_else():
    policy = cluster_of(manifest("rayservice.yaml"))["networkPolicy"]
    for role in ("head", "worker"):
        rules = [rule for rule in policy[role]["ingressRules"] if "llumi/monitoring" in str(rule["from"])]
        assert [rule["ports"] for rule in rules] == [[{"protocol": "TCP", "port": 8080}]]


def test_the_desk_is_a_pod_like_the_others_but_may_write():
    service, desk = manifest("rayservice.yaml"), manifest("desk.yaml")
    pods = [group["template"]["spec"] for group in groups(service)]
    own, head = desk["spec"]["containers"][0], pods[0]["containers"][0]
    assert (desk["kind"], own["image"], own["securityContext"]) == ("Pod", head["image"], head["securityContext"])
    assert desk["spec"]["securityContext"] == pods[0]["securityContext"]
    assert own["volumeMounts"][0] == {"name": "llumi", "mountPath": "/mnt/llumi"}
    assert all(pod["containers"][0]["volumeMounts"][0]["readOnly"] for pod in pods)
    groups(service)[0]["template"]["spec"] = desk["spec"]
    assert errors(service) == []
    desk["spec"]["containers"][0]["comand"] = []
    assert len(errors(service)) == 1
