"""deploy/kubernetes, the compose file and the image: parsed, and held to what the units say and the programs are."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.sizing import FLEETS, need, table
from schemas import topics
from tasktrail.settings import NAMES, read_settings
from tests.e2e.running import ROOT
from tests.fleet.unit_sandbox import Unit

DEPLOY = ROOT / "deploy"
MANIFESTS = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml")
METRICS = {"produce": 9477, "stream": 9478}
"""The ports that docs/fleet.md names."""


def documents() -> list[dict[str, Any]]:
    """Every object of every manifest."""
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]


def one(kind: str, name: str) -> dict[str, Any]:
    """The object of that kind and name."""
    (found,) = [each for each in documents() if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pod(kind: str, name: str) -> dict[str, Any]:
    """The pod that it makes."""
    spec: dict[str, Any] = one(kind, name)["spec"]["template"]["spec"]
    return spec


def containers() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every container with its pod."""
    for document in documents():
        spec = document.get("spec", {}).get("template", {}).get("spec")
        if spec:
            yield from ((spec, each) for each in [*spec.get("initContainers", []), *spec["containers"]])


def capabilities(container: dict[str, Any]) -> set[str]:
    """What it has."""
    given = container["securityContext"]["capabilities"]
    assert given["drop"] == ["ALL"]
    return set(given.get("add", []))


def unit(name: str) -> Unit:
    """A systemd unit."""
    return Unit(DEPLOY / "systemd" / f"{name}.service")


def test_nothing_is_privileged() -> None:
    found = list(containers())
    assert [each["name"] for _, each in found] == ["load", "produce", "stream"]
    for spec, each in found:
        rights = each["securityContext"]
        assert "privileged" not in rights and rights["allowPrivilegeEscalation"] is False and rights["readOnlyRootFilesystem"] is True
        assert spec["automountServiceAccountToken"] is False and "memory" in each["resources"]["limits"]
    assert "privileged: true" not in "".join(path.read_text() for path in MANIFESTS)


def test_capabilities_are_those_of_the_units() -> None:
    host = pod("DaemonSet", "tasktrail")
    assert capabilities(host["initContainers"][0]) == unit("tasktrail-recorder").capabilities == {"BPF", "PERFMON", "SYS_PTRACE"}
    assert capabilities(host["containers"][0]) == unit("tasktrail-produce").capabilities == {"BPF", "SYS_PTRACE"}
    worker = pod("StatefulSet", "tasktrail-worker")
    assert capabilities(worker["containers"][0]) == unit("tasktrail-stream@").capabilities == set()
    assert worker["securityContext"]["runAsNonRoot"] is True and worker["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_recorder_sees_the_node_and_keeps_what_must_outlive_the_pod() -> None:
    host = pod("DaemonSet", "tasktrail")
    assert host["hostPID"] is True and "hostIPC" not in host
    on_node = {volume["name"]: volume["hostPath"]["path"] for volume in host["volumes"] if "hostPath" in volume}
    assert {on_node[name] for name in ("bpf", "run", "state", "machine-id")} == {
        "/sys/fs/bpf",
        "/run/tasktrail",
        "/var/lib/tasktrail",
        "/etc/machine-id",
    }
    for each in (*host["initContainers"], *host["containers"]):
        mounts = {mount["name"]: mount for mount in each["volumeMounts"]}
        for name, path in on_node.items():
            assert mounts[name]["mountPath"] == path
            assert mounts[name].get("readOnly", False) == path.startswith("/etc/")
    assert host["tolerations"] == [{"operator": "Exists"}]


def test_commands_exist_and_are_those_of_the_units() -> None:
    for (_, each), name in zip(containers(), ("tasktrail-recorder", "tasktrail-produce", "tasktrail-stream@"), strict=True):
        words = ["own-name" if "$" in word else word for word in each["args"]]
        started = ["own-name" if word == "%H-%i" else word for word in shlex.split(unit(name).one("ExecStart"))[1:]]
        assert words == started[: len(words)]
        helped = subprocess.run(
            [sys.executable, "-m", "tasktrail", *words, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert helped.returncode == 0, helped.stderr


def test_ports_are_the_documented_ones() -> None:
    assert re.findall(r"metrics.*?(\d{4})", (DEPLOY / "systemd" / "tasktrail.toml.example").read_text()) == [str(METRICS["produce"])]
    for _, each in containers():
        if each["name"] in METRICS:
            assert each["ports"] == [{"name": "metrics", "containerPort": METRICS[each["name"]]}]
    service = one("Service", "tasktrail-worker")
    assert service["spec"]["ports"] == [{"name": "metrics", "port": METRICS["stream"], "targetPort": "metrics"}]
    policy = one("NetworkPolicy", "tasktrail-worker")["spec"]
    assert policy["ingress"][0]["ports"] == [{"protocol": "TCP", "port": METRICS["stream"]}]
    guide = (ROOT / "docs" / "fleet.md").read_text()
    assert all(str(port) in guide for port in METRICS.values())


def test_selectors_find_their_pods() -> None:
    for kind, name in (("DaemonSet", "tasktrail"), ("StatefulSet", "tasktrail-worker")):
        found = one(kind, name)
        labels = found["spec"]["template"]["metadata"]["labels"]
        assert found["spec"]["selector"]["matchLabels"] == labels
    worker = one("StatefulSet", "tasktrail-worker")["spec"]["template"]["metadata"]["labels"]
    host = one("DaemonSet", "tasktrail")["spec"]["template"]["metadata"]["labels"]
    assert one("Service", "tasktrail-worker")["spec"]["selector"] == worker
    assert one("NetworkPolicy", "tasktrail-worker")["spec"]["podSelector"]["matchLabels"] == worker
    assert one("PodDisruptionBudget", "tasktrail-worker")["spec"]["selector"]["matchLabels"] == worker
    assert (
        one("ServiceMonitor", "tasktrail-worker")["spec"]["selector"]["matchLabels"]
        == one("Service", "tasktrail-worker")["metadata"]["labels"]
    )
    assert one("PodMonitor", "tasktrail")["spec"]["selector"]["matchLabels"] == host


def test_what_a_pod_mounts_is_there() -> None:
    named = {
        (each["kind"], each["metadata"]["namespace"], each["metadata"]["name"]): each
        for each in documents()
        if "namespace" in each["metadata"]
    }
    for document in documents():
        spec = document.get("spec", {}).get("template", {}).get("spec")
        if not spec:
            continue
        space = document["metadata"]["namespace"]
        assert ("ServiceAccount", space, spec["serviceAccountName"]) in named
        volumes = {volume["name"] for volume in spec["volumes"]}
        for each in (*spec.get("initContainers", []), *spec["containers"]):
            assert {mount["name"] for mount in each["volumeMounts"]} <= volumes
            for variable in each.get("env", []):
                wanted = variable.get("valueFrom", {}).get("secretKeyRef")
                assert not wanted or wanted["key"] in named["Secret", space, wanted["name"]]["stringData"]
        for volume in spec["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", space, volume["configMap"]["name"]) in named
            if "secret" in volume:
                keys = named["Secret", space, volume["secret"]["secretName"]]["stringData"]
                assert all(item["key"] in keys for item in volume["secret"].get("items", []))


@pytest.mark.parametrize("name", ["tasktrail", "tasktrail-worker"])
def test_settings_in_config_maps_are_settings(name: str, tmp_path: Path) -> None:
    path = tmp_path / "tasktrail.toml"
    path.write_text(one("ConfigMap", name)["data"]["tasktrail.toml"])
    settings = read_settings({}, {}, str(path)).settings
    assert settings.kafka and settings.kafka_ca.startswith("/run/secrets/tasktrail/") and settings.metrics


def test_kubectl_takes_all_of_it() -> None:
    listed = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    assert {*listed, "secret.example.yaml"} == {path.name for path in MANIFESTS}
    known = {
        "Namespace",
        "ServiceAccount",
        "ConfigMap",
        "Secret",
        "DaemonSet",
        "StatefulSet",
        "Service",
        "PodDisruptionBudget",
        "NetworkPolicy",
    }
    assert {each["kind"] for each in documents()} == known | {"PodMonitor", "ServiceMonitor"}
    assert all(each["apiVersion"] and each["metadata"]["name"] for each in documents())


def compose() -> dict[str, Any]:
    """The compose file."""
    parsed: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return parsed


def test_the_compose_file_says_what_the_programs_take() -> None:
    services = compose()["services"]
    assert set(services) == {"kafka", "clickhouse", "topics", "tables", "worker"}
    for name in ("topics", "tables", "worker"):
        this = services[name]
        words = [sys.executable, "-m", "tasktrail", *this["command"], "--help"]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        variables = {key.removeprefix("TASKTRAIL_").lower() for key in this["environment"] if key != "TASKTRAIL_PASSWORD"}
        assert variables <= set(NAMES)
        assert this["cap_drop"] == ["ALL"] and this["read_only"] is True
        assert set(this["depends_on"]) <= set(services)
    # Nobody outside this machine gets in where nothing is asked for.
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports and all(port.startswith(("127.0.0.1:", "${KAFKA_BIND:-127.0.0.1}:")) for port in ports)
    assert services["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_the_image_has_what_the_parts_import() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert "python3-bpfcc" in text and "--system-site-packages" in text and re.search(r"^USER 65534", text, re.M)
    extras = re.search(r"/source\[([\w,]+)\]", text)
    assert extras and {"produce", "read", "stream"} <= set(extras[1].split(","))
    kept = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    packaged = re.search(r"^include = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.M)
    assert packaged and {name.rstrip("*") for name in re.findall(r'"([^"]+)"', packaged[1])} <= kept
    assert all((ROOT / name).exists() for name in kept)


def test_the_topics_that_rights_are_given_for_are_the_topics() -> None:
    script = (DEPLOY / "kafka" / "acls.sh").read_text()
    assert set(re.findall(r'--topic "\$\{prefix\}(tasktrail\.\w+)"', script)) == {topics.EVENTS, topics.STATE, topics.DEADLETTER}


def metrics() -> set[str]:
    """Names of all numbers that hosts and workers give, as Prometheus sees them."""
    found = set()
    for name in ("shipping", "working"):
        text = (ROOT / "tasktrail" / f"{name}.py").read_text()
        total, _, now = text.partition("        total = (")[2].partition("        now = (")
        found |= {f"tasktrail_{each}_total" for each in re.findall(r'^ +\("(\w+)", ', total, re.M)}
        found |= {f"tasktrail_{each}" for each in re.findall(r'\(\s*"(\w+)",', now)}
        found |= {f"tasktrail_{each}" for each in re.findall(r'Number\("(\w+)", Kind.GAUGE', now)}
    return found


def test_alerts_and_the_guide_name_numbers_that_there_are() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"][0]["rules"]
    guide = (ROOT / "docs" / "fleet.md").read_text()
    known = metrics()
    assert len(known) > 40
    used = {name for rule in rules for name in re.findall(r"tasktrail_\w+", rule["expr"])} | set(re.findall(r"`(tasktrail_\w+)`", guide))
    assert used - known - {"tasktrail_reader"} == set()
    told = re.findall(r"^\| (Tasktrail\w+) \|", guide, re.M)
    assert told == [rule["alert"] for rule in rules]


def test_the_guides_sizes_are_what_the_arithmetic_gives() -> None:
    guide = (ROOT / "docs" / "fleet.md").read_text()
    assert "\n".join(table(2.0, 90)) in guide
    for hosts in FLEETS:
        small, large = need(hosts, 2.0, 90), need(hosts, 20.0, 90)
        assert large.events == 10 * small.events and large.messages <= hosts * 4 and large.workers >= small.workers
        assert small.partitions >= 2 * small.workers or small.partitions == 8


def test_what_the_guide_names_is_there() -> None:
    guide = (ROOT / "docs" / "fleet.md").read_text()
    for path in set(re.findall(r"deploy/[\w./-]*\w", guide)):
        assert (ROOT / path).exists(), path
    commands = set(re.findall(r"`?tasktrail ([a-z]+(?: (?:create|init|new|id|host|status))?) ?", guide))
    for command in sorted(commands & {"topics create", "store init", "keys new", "keys id", "keys host", "hosts", "record status", "find"}):
        words = [sys.executable, "-m", "tasktrail", *command.split(), "--help"]
        assert subprocess.run(words, cwd=ROOT, capture_output=True, check=False).returncode == 0, command
    for unit_name in re.findall(r"^\| (tasktrail-\w+@?) \|", guide, re.M):
        assert unit(unit_name).path.exists()
    rights = {name: set(re.findall(r"CAP_(\w+)", line)) for name, line in re.findall(r"^\| (tasktrail-\w+) (\|.*)$", guide, re.M)}
    assert rights["tasktrail-recorder"] == unit("tasktrail-recorder").capabilities
    assert rights["tasktrail-produce"] == unit("tasktrail-produce").capabilities
