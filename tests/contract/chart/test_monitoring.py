"""The dashboards' and alerts' queries name series that the programs export, with labels that they have."""

import json
import re
import subprocess

import yaml
from conftest import CHART, REPO

_SERIES = re.compile(r"\b(quern_[a-z_]+)\b")


def dashboards():
    found = {path.name: json.loads(path.read_text()) for path in (CHART / "dashboards").glob("*.json")}
    assert found
    return found


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries():
    return [(name, panel["title"], target["expr"]) for name, dashboard in dashboards().items()
            for panel in panels(dashboard) for target in panel["targets"]]


def exported():
    """The names in the golden metrics files of the contract tests, with the series that a histogram adds."""
    names = set()
    for side in ("runtime", "operator"):
        golden = (REPO / "tests" / "contract" / side / "metrics.golden").read_text()
        for name, kind in re.findall(r"^(\w+) (\w+) \{", golden, re.M):
            names |= {name + suffix for suffix in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
    return names


def test_dashboards_have_unique_ids_a_datasource_variable_and_no_fixed_source():
    for name, dashboard in dashboards().items():
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(ids) == len(set(ids)), name
        assert any(v["type"] == "datasource" and v["name"] == "datasource" for v in dashboard["templating"]["list"])
        for panel in panels(dashboard):
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
            assert panel["targets"] and panel["description"], panel["title"]


def test_panels_do_not_overlap():
    for name, dashboard in dashboards().items():
        cells = {}
        for panel in dashboard["panels"]:
            grid = panel["gridPos"]
            for x in range(grid["x"], grid["x"] + grid["w"]):
                for y in range(grid["y"], grid["y"] + grid["h"]):
                    assert (x, y) not in cells, f"{name}: {panel['title']} lies over {cells[(x, y)]}"
                    cells[(x, y)] = panel["title"]


def test_every_dashboard_query_names_an_exported_series():
    names = exported()
    for dashboard, title, query in queries():
        series = set(_SERIES.findall(query))
        assert series, f"{dashboard}, {title}: no series in {query}"
        assert series <= names, f"{dashboard}, {title}: {sorted(series - names)} are not exported"


def test_every_alert_names_an_exported_series():
    names = exported()
    for group in yaml.safe_load((CHART / "rules" / "quern.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            series = set(_SERIES.findall(rule["expr"]))
            assert series and series <= names, f"{rule['alert']}: {sorted(series - names)} are not exported"


def test_promtool_accepts_the_rules_and_their_tests_pass():
    rules = CHART / "rules" / "quern.yaml"
    subprocess.run(["promtool", "check", "rules", rules], check=True, capture_output=True)
    done = subprocess.run(["promtool", "test", "rules", "rules_test.yaml"], cwd=REPO / "tests" / "contract" / "chart",
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_prometheus_rule_is_the_plain_file(helm):
    rendered = helm.render("metrics.rules.enabled=true")["PrometheusRule/quern"]
    assert rendered["spec"] == yaml.safe_load((CHART / "rules" / "quern.yaml").read_text())


def test_the_config_map_carries_every_dashboard_unchanged(helm):
    data = helm.render()["ConfigMap/quern-dashboards"]["data"]
    assert data.keys() == dashboards().keys()
    for name, dashboard in dashboards().items():
        assert json.loads(data[name]) == dashboard
