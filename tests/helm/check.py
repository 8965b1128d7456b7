#!/usr/bin/env python3
"""Looks at the Helm chart: the values against their schema, and what the templates use against the values. If there is a
program `helm`, the chart is rendered too, and what comes out is looked at."""

import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import yaml

CHART = Path(__file__).resolve().parents[2] / "deploy/helm/maxhost"
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
EXAMPLE = yaml.safe_load((CHART / "ci/values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def merged(base, over):
    """As Helm lays values over the defaults."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def changed(path, value):
    """The example with one value changed."""
    result = merged(DEFAULTS, EXAMPLE)
    *folders, last = path.split(".")
    place = result
    for folder in folders:
        place = place[folder]
    place[last] = value
    return result


def schema():
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    validator = jsonschema.Draft7Validator(SCHEMA)
    for kind in ("keda", "hpa", "none"):
        validator.validate(changed("autoscaling.type", kind))
    # What has no default has to be said.
    assert not validator.is_valid(DEFAULTS)
    for path, value in [
        ("image.repository", ""),
        ("store.url", "sqlite:data/maxhost.db"),
        ("ownership.url", "zk://zk:2281"),
        ("ownership.existingSecret", ""),
        ("ownership.user", ""),
        ("broker.url", "amqp://broker:5672"),
        ("rpc.tls.existingSecret", ""),
        ("rpc.users.existingSecret", ""),
        ("rpc.messages.enabled", "yes"),
        ("rpc.messages.maxAge", "soon"),
        ("rpc.messages.maxage", "1 h"),
        ("rpc.replicas", 0),
        ("rpc.replica", 2),
        ("flows.slots", 0),
        ("flows.slots", "many"),
        ("flows.terminationGracePeriodSeconds", 1),
        ("autoscaling.type", "vpa"),
        ("autoscaling.keda.existingSecret", ""),
        ("podMonitor.enabled", "yes"),
    ]:
        assert not validator.is_valid(changed(path, value)), f"{path}: {value!r} is taken"


def templates():
    """Each value that a template names is there, has a schema, and blocks are closed."""
    used = set()
    for file in sorted((CHART / "templates").iterdir()):
        text = re.sub(r"\{\{-?\s*/\*.*?\*/\s*-?\}\}", "", file.read_text(), flags=re.S)
        words = re.findall(r"\{\{-?\s*(if|with|range|define|block|end)\b", text)
        assert words.count("end") * 2 == len(words), f"{file.name}: a block is not closed"
        used |= set(re.findall(r"(?:\.Values|\$values)((?:\.\w+)+)", text))
        used |= {f".autoscaling.keda{path}" for path in re.findall(r"\$keda((?:\.\w+)+)", text)}
        used |= {f".{role}{path}" for path in re.findall(r"\.role((?:\.\w+)+)", text) for role in ("rpc", "flows")}
    for path in sorted(used):
        value, rule = DEFAULTS, SCHEMA
        for word in path.strip(".").split("."):
            assert isinstance(value, dict) and word in value, f"values.yaml has no {path}"
            value, rule = value[word], rule.get("properties", {}).get(word)
            assert rule is not None, f"values.schema.json has no {path}"
    # And nothing stands in values.yaml that nothing uses.
    def leaves(value, path=""):
        nested = isinstance(value, dict) and value and not any(path == use for use in used)
        return [path] if not nested else [leaf for key in value for leaf in leaves(value[key], f"{path}.{key}")]

    unused = [leaf for leaf in leaves(DEFAULTS) if not any(leaf == use or leaf.startswith(use + ".") for use in used)]
    assert not unused, f"no template uses {unused}"


def rendered(helm, *sets):
    arguments = [word for assignment in sets for word in ("--set", assignment)]
    command = [helm, "template", "test", str(CHART), "--namespace", "bank", "-f", str(CHART / "ci/values.yaml"), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise AssertionError(answer.stderr)
    objects = [found for found in yaml.safe_load_all(answer.stdout) if found]
    return {(found["kind"], found["metadata"]["name"]): found for found in objects}


def with_helm(helm):
    objects = rendered(helm)
    for role in ("rpc", "flows"):
        pod = objects["Deployment", f"test-maxhost-{role}"]["spec"]["template"]["spec"]
        [container] = pod["containers"]
        env = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert env["MAXHOST_ROLES"] == role, env
        paths = {probe: container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")}
        ready = "/readyz/clients" if role == "rpc" else "/readyz"
        assert paths == {"livenessProbe": "/livez", "readinessProbe": ready}, paths
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        names = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == names
    assert "replicas" not in objects["Deployment", "test-maxhost-flows"]["spec"], "KEDA sets it"
    scaled = objects["ScaledObject", "test-maxhost-flows"]["spec"]
    assert scaled["minReplicaCount"] == 0
    assert scaled["triggers"][0]["metadata"]["scalerAddress"] == "test-maxhost-rpc.bank.svc:7777"
    assert objects["PodDisruptionBudget", "test-maxhost-flows"]["spec"]["maxUnavailable"] == 1
    assert objects["PodDisruptionBudget", "test-maxhost-rpc"]["spec"]["minAvailable"] == 1
    assert "max" in objects["ConfigMap", "test-maxhost"]["data"]["maxhost.toml"]
    objects = rendered(helm, "autoscaling.type=hpa", "autoscaling.minReplicas=1", "podMonitor.enabled=true")
    [metric] = objects["HorizontalPodAutoscaler", "test-maxhost-flows"]["spec"]["metrics"]
    assert metric["external"]["target"]["averageValue"] == "400", metric
    assert ("PodMonitor", "test-maxhost") in objects and not any(kind == "ScaledObject" for kind, _ in objects)
    objects = rendered(helm, "autoscaling.type=none", "rpc.replicas=1", "flows.replicas=3")
    assert objects["Deployment", "test-maxhost-flows"]["spec"]["replicas"] == 3
    assert ("PodDisruptionBudget", "test-maxhost-rpc") not in objects
    try:
        rendered(helm, "broker.url=amqp://broker:5672")
    except AssertionError as error:
        assert "broker" in str(error), error
    else:
        raise AssertionError("a broker without TLS is taken")


def main():
    schema()
    templates()
    helm = shutil.which("helm")
    if helm:
        with_helm(helm)
    print("the chart is well" + ("" if helm else "; helm is not here, so it was not rendered"))


if __name__ == "__main__":
    sys.exit(main())
