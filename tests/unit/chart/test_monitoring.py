"""Monitors, rules and dashboards."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from helm_chart import CHART, find, render

ON = {
    "metrics": {
        "labels": {"release": "prometheus"},
        "serviceMonitor": {"enabled": True},
        "podMonitor": {"enabled": True, "ranksPerWorker": 2},
        "prometheusRule": {"enabled": True},
    }
}
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
RULES = sorted((CHART / "rules").glob("*.yaml"))


def test_there_is_something_to_install() -> None:
    assert DASHBOARDS
    assert RULES


def test_nothing_of_the_prometheus_operator_by_default() -> None:
    assert [each["kind"] for each in render({}) if each["apiVersion"].startswith("monitoring.coreos.com/")] == []


def test_all_of_it_carries_the_labels_that_prometheus_selects_by() -> None:
    found = [each for each in render(ON) if each["apiVersion"] == "monitoring.coreos.com/v1"]
    assert sorted(each["kind"] for each in found) == [
        "PodMonitor",
        "PrometheusRule",
        "ServiceMonitor",
        "ServiceMonitor",
    ]
    assert all(each["metadata"]["labels"]["release"] == "prometheus" for each in found)


@pytest.mark.parametrize("name", ["sternpost-operator", "sternpost-memory"])
def test_monitors_of_services_find_their_service(name: str) -> None:
    objects = render(ON)
    monitor, service = find(objects, "ServiceMonitor", name), find(objects, "Service", name)
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    others = [
        each["metadata"]["name"]
        for each in objects
        if each["kind"] == "Service"
        and monitor["spec"]["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
    ]
    assert others == [name]


def test_a_jobs_namespace_on_the_operators_page_is_kept() -> None:
    (endpoint,) = find(render(ON), "ServiceMonitor", "sternpost-operator")["spec"]["endpoints"]
    assert endpoint["honorLabels"] is True


def test_workers_are_scraped_on_all_their_pages_and_named_by_node_and_job() -> None:
    spec = find(render(ON), "PodMonitor", "sternpost-workers")["spec"]
    assert spec["selector"] == {"matchExpressions": [{"key": "sternpost.dev/job", "operator": "Exists"}]}
    assert spec["namespaceSelector"] == {"any": True}
    assert [each["port"] for each in spec["podMetricsEndpoints"]] == [
        "eagle-eye",
        "checkpoint",
        "metrics-0",
        "metrics-1",
    ]
    for endpoint in spec["podMetricsEndpoints"]:
        targets = {each["targetLabel"]: each["sourceLabels"] for each in endpoint["relabelings"]}
        assert targets == {
            "node": ["__meta_kubernetes_pod_node_name"],
            "job_name": ["__meta_kubernetes_pod_label_sternpost_dev_job"],
        }


def test_workers_of_the_watched_namespaces_only() -> None:
    spec = find(render({**ON, "operator": {"watchNamespaces": ["team-a"]}}), "PodMonitor", "sternpost-workers")["spec"]
    assert spec["namespaceSelector"] == {"matchNames": ["team-a"]}


def groups(*, without: str = "") -> list[dict[str, Any]]:
    return [
        group
        for path in RULES
        if path.name != without
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    ]


def test_rules_are_those_of_the_files_to_the_letter() -> None:
    assert find(render(ON), "PrometheusRule", "sternpost")["spec"]["groups"] == groups()


def test_no_alert_on_a_memory_service_that_is_not_there() -> None:
    objects = render({**ON, "memory": {"enabled": False}})
    assert find(objects, "PrometheusRule", "sternpost")["spec"]["groups"] == groups(without="memory.yaml")


def test_runbooks_may_be_elsewhere() -> None:
    rules = {"prometheusRule": {"enabled": True, "runbookBase": "https://wiki.example/sternpost"}}
    text = json.dumps(find(render({"metrics": rules}), "PrometheusRule", "sternpost"))
    assert "https://wiki.example/sternpost#" in text
    assert "docs/runbooks.md" not in text


def test_dashboards_are_those_of_the_files_to_the_letter() -> None:
    objects = render({"dashboards": {"annotations": {"folder": "Training"}}})
    for path in DASHBOARDS:
        config = find(objects, "ConfigMap", f"sternpost-dashboard-{path.stem}")
        assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert config["metadata"]["annotations"] == {"folder": "Training"}
        (text,) = config["data"].values()
        assert json.loads(text) == json.loads(path.read_text(encoding="utf-8"))


def test_prometheus_is_let_in_from_the_namespaces_given() -> None:
    values = {"metrics": {"namespaces": ["monitoring"], "serviceMonitor": {"enabled": True}}}
    for name in ("sternpost-operator", "sternpost-memory"):
        (rule,) = find(render(values), "NetworkPolicy", name)["spec"]["ingress"]
        monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        assert monitoring in rule["from"]
        assert {"namespaceSelector": {}} not in rule["from"]
