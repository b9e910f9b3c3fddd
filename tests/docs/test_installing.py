"""`docs/installing.md`: the manifest for Kubernetes fits the image that it runs, and the config in it is one."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from relay.config import load
from relay.schema import TcpAddress
from tests.docs.pages import ROOT, blocks

DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    [text] = [block.text for block in blocks("docs/installing.md") if block.text.startswith("# kubernetes.yaml\n")]
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


def test_the_config_in_the_manifest_is_one_and_listens_where_the_pod_and_its_probes_look(
    manifest: dict[str, Any],
) -> None:
    [(name, text)] = manifest["ConfigMap"]["data"].items()
    [container] = manifest["Deployment"]["spec"]["template"]["spec"]["containers"]
    environ = {each["name"]: "a-token-for-tests-0123" for each in container["env"]}
    loaded = load(text.encode(), name=name, environ=environ)
    assert loaded.warnings == ()
    [port] = container["ports"]
    assert loaded.config.server.listen == TcpAddress("0.0.0.0", port["containerPort"])
    assert "http://" + str(loaded.config.admin.listen) in (ROOT / "packaging/docker/relay-ready").read_text()
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        [command] = container[probe]["exec"]["command"]
        assert f"packaging/docker/{command} /opt/relay/bin/{command}" in DOCKERFILE
    [service] = manifest["Service"]["spec"]["ports"]
    assert service["targetPort"] == port["name"]


def test_the_pod_has_what_the_image_needs(manifest: dict[str, Any]) -> None:
    deployment = manifest["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    [container] = pod["containers"]
    security = pod["securityContext"]
    assert f"\nUSER {security['runAsUser']}:{security['runAsGroup']}\n" in DOCKERFILE
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    [store] = re.findall(r"^VOLUME (.*)$", DOCKERFILE, re.M)
    [config] = re.findall(r"RELAY_CONFIG=(.*)/config.yaml$", DOCKERFILE, re.M)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert "persistentVolumeClaim" in volumes[mounted.pop(store)]
    assert "configMap" in volumes[mounted.pop(config)]
    assert [volumes[name] for name in mounted.values()] == [{"name": "tmp", "emptyDir": {}}]
    assert f"sqlite:{store}/" in manifest["ConfigMap"]["data"]["config.yaml"]
    [stop] = re.findall(r"^TimeoutStopSec=(\d+)s$", (ROOT / "systemd/relay.service").read_text(), re.M)
    assert pod["terminationGracePeriodSeconds"] == int(stop)
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
