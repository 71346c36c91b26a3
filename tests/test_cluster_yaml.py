"""Descriptions of clusters, read by Ray itself: AWS (simulated), on premises, Kubernetes, Docker.

`make hosts` brings up the on-premises one for real, on hosts made of namespaces.
"""

import copy
import re
import subprocess
import time
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import yaml

from ray_jobs.serving import deployment
from tests.conftest import ROOT

TOKEN = "~/.ray/auth_token"
AWS, ONPREM = "cluster.yaml", "configs/cluster/onprem.yaml"
PINS = dict(
    line.split(" ;")[0].split("==")
    for line in (ROOT / "requirements.txt").read_text().splitlines()
    if "==" in line
)


def read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def prepared(name):
    from ray.autoscaler._private.util import prepare_config

    return prepare_config(copy.deepcopy(read(name)))


@pytest.mark.parametrize("name", [AWS, ONPREM])
def test_ray_accepts_it(name):
    from ray.autoscaler._private.util import validate_config

    config = prepared(name)
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]
    assert config["cluster_name"] == "maskcls"


@pytest.mark.parametrize("name", [AWS, ONPREM])
def test_every_node_gets_the_token_and_starts_with_it(name):
    config = prepared(name)
    assert config["file_mounts"][TOKEN] == TOKEN
    for kind in ("head", "worker"):
        *_, start = config[f"{kind}_start_ray_commands"]
        assert "RAY_AUTH_MODE=token ray start" in start
        assert "0.0.0.0" not in start  # the dashboard is reached by a tunnel
    assert "--address=$RAY_HEAD_IP:" in start


@pytest.mark.parametrize("name", [AWS, ONPREM])
def test_every_node_installs_the_pinned_requirements(name):
    config = prepared(name)
    assert config["file_mounts"]["~/requirements.txt"] == "requirements.txt"
    for kind in ("head", "worker"):
        # What Ray runs there: the common commands, then those of the kind.
        commands = config[f"{kind}_setup_commands"]
        assert any("pip install --quiet -r ~/requirements.txt" in line for line in commands)
        assert not [line for line in commands if "pip install" in line and "~/venv/bin" not in line]
        for line in commands:
            subprocess.run(["bash", "-n", "-c", line], check=True)


class NoShell:
    """In place of ``subprocess``: keeps the command lines that Ray would run on other machines."""

    def __init__(self):
        self.lines = []

    def check_call(self, words, **options):
        self.lines.append(" ".join(words))


def test_the_head_brings_up_every_machine_that_the_file_names(tmp_path, monkeypatch):
    """What Ray's autoscaler does on the head with the file that `ray up` hands it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    from ray.autoscaler._private.autoscaler import StandardAutoscaler
    from ray.autoscaler._private.load_metrics import LoadMetrics
    from ray.autoscaler._private.prom_metrics import AutoscalerPrometheusMetrics

    config = prepared(ONPREM)
    *_, start = config["head_start_ray_commands"]
    assert "RAY_enable_autoscaler_v2=0" in start  # what follows is the first one
    workers = config["provider"]["worker_ips"]
    config["file_mounts"] = {name: name for name in config["file_mounts"]}  # as on the head
    config["auth"]["ssh_private_key"] = "~/key.pem"
    for name in (*config["file_mounts"], "~/key.pem"):
        (tmp_path / name[2:]).parent.mkdir(exist_ok=True)
        (tmp_path / name[2:]).write_text("")
    shell = NoShell()
    autoscaler = StandardAutoscaler(
        lambda: copy.deepcopy(config), LoadMetrics(), Mock(), process_runner=shell,
        update_interval_s=0, prom_metrics=AutoscalerPrometheusMetrics("test"),
    )  # fmt: skip
    autoscaler.load_metrics.update(config["provider"]["head_ip"], b"head", {}, {}, 0)
    deadline = time.monotonic() + 30
    while sum("ray start" in line for line in shell.lines) < len(workers):
        assert time.monotonic() < deadline, shell.lines
        autoscaler.update()
        time.sleep(0.1)
    for worker in workers:
        lines = "\n".join(line for line in shell.lines if worker in line)
        assert f"~/.ray/auth_token {config['auth']['ssh_user']}@{worker}:~/.ray/auth_token" in (
            lines.replace(str(tmp_path), "~")
        )
        assert "pip install --quiet -r ~/requirements.txt" in lines
        assert f"RAY_HEAD_IP={config['provider']['head_ip']}" in lines


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    """cluster.yaml as far as Ray brings it on an AWS that is simulated: a head and a worker."""
    moto = pytest.importorskip("moto", reason="moto simulates AWS")
    with pytest.MonkeyPatch.context() as patch, moto.mock_aws():
        # Ray attaches policies of AWS's own, and writes a key to ~/.ssh.
        patch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        from ray.autoscaler._private.aws import config as bootstrap
        from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
        from ray.autoscaler._private.util import validate_config

        patch.setattr(bootstrap, "time", SimpleNamespace(sleep=lambda seconds: None))
        config = AWSNodeProvider.fillout_available_node_types_resources(prepared(AWS))
        validate_config(config)
        config = AWSNodeProvider.bootstrap_config(config)
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        made = {}
        for name, kind in (("head", "head"), ("gpu_worker", "worker")):
            node_config = copy.deepcopy(config["available_node_types"][name]["node_config"])
            if name == config["head_node_type"]:
                node_config |= config["head_node"]
            tags = {"ray-node-type": kind, "ray-launch-config": "-"}
            made[name] = list(provider.create_node(node_config, tags, 1).values())
        yield SimpleNamespace(config=config, ec2=provider.ec2, **made)


def test_aws_workers_are_spot_gpus_that_come_when_they_are_needed(aws):
    kinds = aws.config["available_node_types"]
    assert kinds["gpu_worker"]["resources"]["GPU"] == 1
    assert "GPU" not in kinds["head"]["resources"]
    assert kinds["gpu_worker"]["min_workers"] == 0
    assert 0 < kinds["gpu_worker"]["max_workers"] <= aws.config["max_workers"]
    assert aws.config["idle_timeout_minutes"] <= 15
    assert [node.instance_lifecycle for node in aws.gpu_worker] == ["spot"]
    assert aws.head[0].instance_lifecycle != "spot"


def test_aws_everything_that_costs_is_tagged(aws):
    for node in (*aws.head, *aws.gpu_worker):
        for thing in (node, *node.volumes.all()):
            assert {"Key": "project", "Value": "maskcls"} in thing.tags
        assert list(node.volumes.all())
        assert {"Key": "ray-cluster-name", "Value": "maskcls"} in node.tags


def test_aws_nothing_comes_in_but_ssh(aws):
    groups = {group["GroupId"] for node in (*aws.head, *aws.gpu_worker)
              for group in node.security_groups}  # fmt: skip
    (group,) = map(aws.ec2.SecurityGroup, groups)
    assert group.group_name == "maskcls"
    for rule in group.ip_permissions:
        among_its_members = [pair["GroupId"] for pair in rule["UserIdGroupPairs"]]
        if among_its_members:
            assert among_its_members == [group.id]
            assert not rule["IpRanges"] and not rule["Ipv6Ranges"]
        else:
            assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 22, 22)


def test_aws_only_the_head_may_start_machines(aws):
    assert "boto3" in PINS  # by which it does
    assert aws.head[0].iam_instance_profile
    assert not any(node.iam_instance_profile for node in aws.gpu_worker)


def test_aws_every_node_mounts_the_shared_folder():
    for kind in ("head", "worker"):
        (mount,) = [line for line in prepared(AWS)[f"{kind}_setup_commands"] if "mount -t" in line]
        assert "efs." in mount
        assert mount.endswith(" /mnt/shared")


@pytest.fixture(scope="module")
def kuberay():
    parts = [
        yaml.safe_load((ROOT / f"configs/cluster/kuberay{name}.yaml").read_text(encoding="utf-8"))
        for name in ("", "-storage", "-job")
    ]
    return {part["kind"]: part for part in parts}


def test_ray_reads_the_kubernetes_cluster_as_it_is_meant(kuberay):
    from ray.autoscaler._private.kuberay import autoscaling_config

    cluster = copy.deepcopy(kuberay["RayCluster"])
    cluster["metadata"]["namespace"] = "default"  # Kubernetes fills that in
    config = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    head, gpu = (config["available_node_types"][name] for name in ("headgroup", "gpu"))
    assert (gpu["min_workers"], gpu["max_workers"], gpu["resources"]["GPU"]) == (0, 4, 1)
    assert "GPU" not in head["resources"]
    assert config["idle_timeout_minutes"] == 10
    assert cluster["spec"]["enableInTreeAutoscaling"]
    assert cluster["spec"]["rayVersion"] == PINS["ray"]


def test_every_pod_has_token_image_user_and_shared_folder(kuberay):
    spec = kuberay["RayCluster"]["spec"]
    claim = kuberay["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    pods = [spec["headGroupSpec"]["template"]["spec"]]
    pods += [group["template"]["spec"] for group in spec["workerGroupSpecs"]]
    containers = [container for pod in pods for container in pod["containers"]]
    assert spec["authOptions"] == {"mode": "token"}
    for part in (*containers, spec["autoscalerOptions"]):
        assert part["securityContext"]["allowPrivilegeEscalation"] is False
        assert part["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert len({container["image"] for container in containers}) == 1
    for pod, container in zip(pods, containers, strict=True):
        assert container["resources"]["requests"] == container["resources"]["limits"]
        names = {m["name"] for m in container["volumeMounts"] if m["mountPath"] == "/mnt/shared"}
        (volume,) = [v for v in pod["volumes"] if v["name"] in names]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert str(pod["securityContext"]["runAsUser"]) == docker("USER")[-1]


def test_a_sweep_on_kubernetes_is_submitted_again_to_a_cluster_like_the_other(kuberay):
    job = kuberay["RayJob"]["spec"]
    assert job["rayClusterSpec"] == kuberay["RayCluster"]["spec"]
    assert job["backoffLimit"] > 0
    most = job["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"]
    assert f"resources.max_gpus={most}" in job["entrypoint"]


def test_the_service_on_kubernetes_is_that_of_serve_yaml_on_the_same_cluster(kuberay):
    service = read("configs/cluster/rayservice.yaml")["spec"]
    assert yaml.safe_load(service["serveConfigV2"]) == read("configs/cluster/serve.yaml")
    cluster = service["rayClusterConfig"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in pods:
        (container,) = pod["template"]["spec"]["containers"]
        (token,) = container.pop("env")
        assert token["name"] == deployment.TOKEN
        assert "secretKeyRef" in token["valueFrom"]
    assert cluster == kuberay["RayCluster"]["spec"]


def test_ray_serve_reads_the_service_and_asks_for_a_token(monkeypatch):
    from ray.serve.schema import ServeDeploySchema

    (application,) = ServeDeploySchema.model_validate(
        read("configs/cluster/serve.yaml")
    ).applications
    assert application.import_path == f"{deployment.__name__}:{deployment.build.__name__}"
    monkeypatch.delenv(deployment.TOKEN, raising=False)
    with pytest.raises(ValueError, match="set MASKCLS_TOKEN"):
        deployment.build(application.args)
    monkeypatch.setenv(deployment.TOKEN, "x" * 32)
    deployment.build(application.args)
    for wrong in ({"model": 3}, {}, {"model": "/x", "replica": 2}, {"model": "/x", "replicas": 0}):
        with pytest.raises(ValueError):
            deployment.build(wrong)


def test_deleting_the_kubernetes_cluster_keeps_its_storage():
    for name in ("kuberay.yaml", "kuberay-job.yaml"):
        text = (ROOT / "configs/cluster" / name).read_text(encoding="utf-8")
        assert "kind: PersistentVolumeClaim" not in text


def test_aws_disks_are_encrypted_and_on_demand_machines_wait_for_their_turn(aws):
    types = prepared(AWS)["available_node_types"]
    for settings in types.values():
        (disk,) = settings["node_config"]["BlockDeviceMappings"]
        assert disk["Ebs"]["Encrypted"] is True
    spot, sure = types["gpu_worker"], types["gpu_on_demand"]
    assert sure["max_workers"] == 0
    assert "InstanceMarketOptions" not in sure["node_config"]
    assert sure["node_config"]["InstanceType"] == spot["node_config"]["InstanceType"]


@pytest.mark.parametrize("name", [AWS, ONPREM])
def test_no_node_sends_usage_statistics(name):
    config = prepared(name)
    for kind in ("head", "worker"):
        assert "RAY_USAGE_STATS_ENABLED=0" in config[f"{kind}_start_ray_commands"][-1]
    assert "RAY_USAGE_STATS_ENABLED=0" in docker("ENV")[0]


# Of the RayCluster type ray.io/v1, as KubeRay 1.5.1 and later know it.
FIELDS = {
    "": {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions",
         "headGroupSpec", "workerGroupSpecs"},
    "autoscalerOptions": {"idleTimeoutSeconds", "env", "envFrom", "image", "imagePullPolicy",
                          "resources", "securityContext", "upscalingMode", "volumeMounts"},
    "headGroupSpec": {"rayStartParams", "template", "serviceType", "headService", "enableIngress"},
    "workerGroupSpecs": {"groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts",
                         "rayStartParams", "template", "scaleStrategy"},
}  # fmt: skip


def test_the_kubernetes_cluster_has_no_field_that_is_not_known(kuberay):
    spec = kuberay["RayCluster"]["spec"]
    for name, known in FIELDS.items():
        parts = [spec] if not name else spec[name] if isinstance(spec[name], list) else [spec[name]]
        for part in parts:
            assert set(part) <= known, name
            # Kubernetes refuses numbers and booleans there.
            assert all(isinstance(v, str) for v in part.get("rayStartParams", {}).values())


def docker(instruction):
    """The arguments of every such instruction of the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(rf"^{instruction} (.*)$", text, re.MULTILINE)


def test_the_image_has_the_pinned_requirements_and_no_others():
    assert docker("FROM") == ["${BASE}"]
    (base,) = docker("ARG")
    version = re.fullmatch(r"BASE=python:(3\.\d+)\.\d+-slim-bookworm", base)[1]
    lowest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert version == lowest  # the version that the pins were compiled for
    installs = [line for line in docker("RUN") if "pip" in line]
    assert installs == ["pip install --no-cache-dir -r requirements.txt"]
    assert docker("USER")[-1] not in ("0", "root")


def test_the_files_of_the_image_exist_and_reach_the_build():
    let_through = (ROOT / ".dockerignore").read_text().splitlines()
    assert let_through[0] == "*"
    for source, target in map(str.split, docker("COPY")):
        assert (ROOT / source).exists()
        assert f"!{source}" in let_through
        assert target in (".", f"/app/{source}")
    assert "PYTHONPATH=/app" in docker("ENV")[0]
