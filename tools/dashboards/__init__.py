"""The Grafana dashboards as code: `python -m tools.dashboards` writes `charts/sternpost/dashboards/*.json`."""
