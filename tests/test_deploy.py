"""What deploy/, the Dockerfile and the compose file promise, checked without an engine to run them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app import metrics
from app.adapters.redis_server import DURABLE
from app.api.auth import KeyRing
from app.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
KUBERNETES = {each["kind"]: each for each in yaml.safe_load_all((ROOT / "deploy/kubernetes/firstsight.yaml").read_text())}
ALERTS = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"][0]["rules"]
KUBERNETES_VERSION = "1.37"
REPLICAS = ("one", "two")


def instructions(name: str) -> list[str]:
    """What follows each instruction of that name in the Dockerfile, in their order."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name} (.+)$", joined, re.MULTILINE)


def test_the_compose_file_is_one_by_the_compose_schema() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(ROOT / "docker-compose.yml")],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


def test_the_base_is_named_once_and_can_be_another() -> None:
    assert DOCKERFILE.index("ARG BASE=") < DOCKERFILE.index("FROM ")
    assert [each.split()[0] for each in instructions("FROM")] == ["${BASE}", "${BASE}"]


def test_what_the_image_installs_is_in_the_lock_with_its_hash() -> None:
    installs = [each for each in instructions("RUN") if "pip install" in each]
    assert all("--require-hashes" in each or "--no-deps" in each for each in installs)
    for extra in ("cpu", "gpu"):
        assert (ROOT / f"requirements/{extra}.txt").exists()


def test_the_image_does_not_run_as_root() -> None:
    assert instructions("USER") == ["10001"]
    assert DOCKERFILE.index("USER ") < DOCKERFILE.index("ENTRYPOINT")
    assert KUBERNETES["Deployment"]["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == 10001


def test_the_image_has_what_is_copied_into_it() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [each.split()[:-1] for each in instructions("COPY") if "--from" not in each]
    for source in (source for sources in copied for source in sources):
        assert source.split("/")[0] in allowed
        assert (ROOT / source.replace("${EXTRA}", "cpu")).exists()


@pytest.mark.parametrize("name", REPLICAS)
def test_a_replica_can_write_nowhere_and_gain_nothing(name: str) -> None:
    replica = COMPOSE["services"][name]
    assert replica["read_only"]
    assert replica["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in replica["security_opt"]
    (container,) = KUBERNETES["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]


def test_nothing_is_open_to_other_machines_unless_that_is_said() -> None:
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert all(port.startswith(("127.0.0.1:", "${LISTEN:-127.0.0.1:")) for port in published)
    assert "ports" not in COMPOSE["services"]["redis"]


def test_no_password_is_in_the_files() -> None:
    assert "${REDIS_PASSWORD:?" in COMPOSE["services"]["one"]["environment"]["FIRSTSIGHT_STORE"]
    assert "requirepass" not in (ROOT / "deploy/redis/redis.conf").read_text()


def test_secrets_are_the_owner_s_and_all_different(tmp_path: Path) -> None:
    environment = Path(sys.executable).parent.parent
    (tmp_path / "var").mkdir(mode=0o755)
    command = ["make", "--file", str(ROOT / "Makefile"), f"--old-file={environment}/serve", f"VENV={environment}", "secrets"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    keys, password = KeyRing(tmp_path / "var/keys.json"), (tmp_path / ".env").read_text()
    metrics_key = (tmp_path / "var/metrics.key").read_text().strip()
    assert [found and found.id for found in map(keys.find, (printed, metrics_key))] == ["admin", "metrics"]
    assert re.fullmatch(r"REDIS_PASSWORD=[\w-]{40,}\n", password)
    assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode != 0  # it makes no second ones
    assert (tmp_path / ".env").read_text() == password


def test_secrets_are_mounted_one_by_one() -> None:
    assert {secret["file"] for secret in COMPOSE["secrets"].values()} == {"./var/keys.json", "./var/metrics.key"}
    mounted = [volume for service in COMPOSE["services"].values() for volume in service.get("volumes", [])]
    assert not any("var" in volume.split(":")[0].split("/") for volume in mounted)


def test_every_image_is_pinned_and_what_runs_for_ever_has_a_health_check() -> None:
    for name, service in COMPOSE["services"].items():
        assert name in REPLICAS or re.search(r":v?\d+\.\d+", service["image"])
    assert all("healthcheck" in COMPOSE["services"][name] for name in (*REPLICAS, "redis"))


@pytest.mark.parametrize("source", ["compose", "kubernetes", "image"])
def test_settings_that_are_set_exist(source: str) -> None:
    found = {
        "compose": set(COMPOSE["services"]["one"]["environment"]),
        "kubernetes": set(re.findall(r"name: (FIRSTSIGHT_\w+)", (ROOT / "deploy/kubernetes/firstsight.yaml").read_text())),
        "image": set(re.findall(r"(FIRSTSIGHT_\w+)=", DOCKERFILE)),
    }[source]
    assert found
    assert found <= {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


def test_redis_is_as_durable_as_the_service_asks() -> None:
    lines = (line.partition(" ")[::2] for line in (ROOT / "deploy/redis/redis.conf").read_text().splitlines())
    configured = dict(lines)
    assert all(configured[name] in wanted for name, wanted in DURABLE.items())


def test_the_grace_periods_outlast_the_service_s_own() -> None:
    shutdown_s = Settings.model_fields["shutdown_timeout_s"].default
    pod = KUBERNETES["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    slept_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > shutdown_s + slept_s
    assert int(COMPOSE["services"]["one"]["stop_grace_period"].removesuffix("s")) > shutdown_s


@pytest.mark.parametrize("kind", sorted(KUBERNETES))
def test_kubernetes_takes_the_manifest_by_its_schema_and_knows_every_field_in_it(kind: str) -> None:
    kubernetes_validate.validate(KUBERNETES[kind], KUBERNETES_VERSION, strict=True)


def test_one_replica_is_always_left() -> None:
    assert KUBERNETES["PodDisruptionBudget"]["spec"]["minAvailable"] >= 1
    assert KUBERNETES["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_probes_ask_what_the_service_answers() -> None:
    (container,) = KUBERNETES["Deployment"]["spec"]["template"]["spec"]["containers"]
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness", "startup")}
    assert probes == {"liveness": "/healthz", "readiness": "/readyz", "startup": "/healthz"}


SERIES = {name for name, _ in metrics.series()} | {"process_resident_memory_bytes", "up"}


def named_in(expression: str) -> set[str]:
    names = set(re.findall(r"\b(?:firstsight|process)_\w+", expression))
    return {re.sub(r"_(bucket|sum|count)$", "", name) if name not in SERIES else name for name in names}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_is_about_series_that_exist_and_the_docs_say_what_to_do(rule: dict[str, Any]) -> None:
    assert named_in(rule["expr"]) <= SERIES
    assert f"| `{rule['alert']}` |" in (ROOT / "docs/operations.md").read_text()


@pytest.mark.skipif(
    shutil.which("promtool") is None and "TESTS_SKIP_NOTHING" not in os.environ,
    reason="promtool (of Prometheus) is not installed",
)
@pytest.mark.parametrize("check", ["check config prometheus.yml", "check rules alerts.yml", "test rules alerts_test.yml"])
def test_prometheus_takes_its_files_and_the_alerts_fire_on_what_they_are_about(tmp_path: Path, check: str) -> None:
    shutil.copytree(ROOT / "deploy/prometheus", tmp_path, dirs_exist_ok=True)
    (tmp_path / "key").touch()  # in the place of the secret that compose mounts
    configuration = (tmp_path / "prometheus.yml").read_text().replace("/run/secrets/metrics_key", f"{tmp_path}/key")
    (tmp_path / "prometheus.yml").write_text(configuration)

    checked = subprocess.run(["promtool", *check.split()], cwd=tmp_path, capture_output=True, text=True)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_is_shown_to_fire() -> None:
    tests = yaml.safe_load((ROOT / "deploy/prometheus/alerts_test.yml").read_text())["tests"]
    fired = {rule["alertname"] for test in tests for rule in test["alert_rule_test"] if rule["exp_alerts"]}
    assert fired == {rule["alert"] for rule in ALERTS}


def test_the_dashboard_shows_series_that_exist() -> None:
    board = json.loads((ROOT / "deploy/grafana/dashboards/firstsight.json").read_text())
    shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(shown) >= 10
    assert all(named_in(expression) <= SERIES for expression in shown)


NGINX = (ROOT / "deploy/nginx/nginx.conf").read_text()


@pytest.mark.skipif(shutil.which("nginx") is None and "TESTS_SKIP_NOTHING" not in os.environ, reason="nginx is not installed")
def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "nginx.conf").write_text(
        re.sub(r"server (one|two):", "server 127.0.0.1:", NGINX).replace("/tmp/", f"{tmp_path}/")
    )
    command = ["nginx", "-t", "-e", str(tmp_path / "log"), "-c", str(tmp_path / "nginx.conf")]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_nginx_takes_a_body_that_the_service_takes() -> None:
    (megabytes,) = re.findall(r"client_max_body_size (\d+)m;", NGINX)
    assert int(megabytes) * 2**20 > Settings.model_fields["max_body_bytes"].default


def test_nginx_passes_the_path_on_as_it_came() -> None:
    assert set(re.findall(r"proxy_pass (\S+);", NGINX)) == {"http://firstsight"}
