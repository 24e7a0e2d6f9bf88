"""The Kubernetes example: valid by the schemas of the API, and consistent with the image and the server."""

import pytest
import yaml
from tests.deploy.conftest import DEPLOY, done
from tests.uv import UV

from puna.cli.serve import CLOSING_SECONDS

FOLDER = DEPLOY / "kubernetes"
VALIDATOR = "kubernetes-validate==1.37.0"


@pytest.fixture(scope="module")
def objects():
    return {
        (each["kind"], each["metadata"]["name"]): each
        for each in yaml.safe_load_all((FOLDER / "puna.yaml").read_text())
    }


@pytest.fixture(scope="module")
def pod(objects):
    return objects["StatefulSet", "puna"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_the_objects_follow_the_schemas(version):
    validate = ("kubernetes-validate", "--strict", "-k", version, FOLDER / "puna.yaml")
    done(UV, "run", "--quiet", "--no-project", "--with", VALIDATOR, *validate)


def test_every_container_is_restricted(pod):
    """The rules of the Pod Security Standard `restricted`, and a root that is read only."""
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*pod["initContainers"], *pod["containers"]):
        held = container["securityContext"]
        assert held["allowPrivilegeEscalation"] is False
        assert held["readOnlyRootFilesystem"]
        assert held["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
    recipe = (DEPLOY / "container/Containerfile").read_text()
    assert f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}\n" in recipe


def test_the_drain_fits(objects, pod):
    given = objects["ConfigMap", "puna"]["data"]["config.toml"]
    assert 'drain_delay = "10s"' in given
    assert "max_drain_seconds = 60" in given
    assert pod["terminationGracePeriodSeconds"] > 10 + 60 + CLOSING_SECONDS


def test_ports_and_labels_agree(objects, pod):
    ports = {each["name"]: each["containerPort"] for each in pod["containers"][0]["ports"]}
    labels = objects["StatefulSet", "puna"]["spec"]["template"]["metadata"]["labels"]
    for (kind, _), each in objects.items():
        if kind == "Service":
            assert {port["targetPort"] for port in each["spec"]["ports"]} <= set(ports)
            assert each["spec"]["selector"].items() <= labels.items()
    (monitor,) = yaml.safe_load_all((FOLDER / "podmonitor.yaml").read_text())
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]} <= set(ports)
    assert pod["containers"][0]["readinessProbe"]["grpc"]["port"] == ports["grpc"]
