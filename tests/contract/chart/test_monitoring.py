"""The dashboards' and alerts' queries name series that the programs export, with labels that they have."""

import json
import re
import subprocess

import yaml
from conftest import CHART, REPO

_SERIES = re.compile(r"(?<![\w:])(quern_[a-z_]+)\b")
_RECORDED = re.compile(r"\b[a-z_]+:quern_[a-z_]+:\w+")
# Of NVIDIA's dcgm-exporter, all in its default set.
_DCGM = {"DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"}
_VARIABLES = {"$namespace": "a", "$model": "m", "$__rate_interval": "5m"}


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


def rules():
    return [rule for group in yaml.safe_load((CHART / "rules" / "quern.yaml").read_text())["groups"] for rule in group["rules"]]


def recorded():
    return {rule["record"] for rule in rules() if "record" in rule}


def unknown_series(query):
    """What `query` names that no program exports and no rule records."""
    return (set(_SERIES.findall(query)) - exported() | set(_RECORDED.findall(query)) - recorded()
            | set(re.findall(r"\bDCGM_\w+", query)) - _DCGM)


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


def test_every_dashboard_query_names_a_series_that_there_is():
    for dashboard, title, query in queries():
        assert _SERIES.search(query) or _RECORDED.search(query), f"{dashboard}, {title}: no series in {query}"
        assert not unknown_series(query), f"{dashboard}, {title}: {sorted(unknown_series(query))}"


def test_every_rule_names_a_series_that_there_is():
    for rule in rules():
        assert _SERIES.search(rule["expr"]) or _RECORDED.search(rule["expr"]), rule
        assert not unknown_series(rule["expr"]), f"{rule}: {sorted(unknown_series(rule['expr']))}"


def test_the_panels_of_gpus_show_figures_where_dcgm_exporter_runs(tmp_path):
    """There is no GPU in the end-to-end tests, which run every other query against a real Prometheus."""
    expressions = [query for _, _, query in queries() if _RECORDED.search(query)]
    assert len(expressions) == 4
    for variable, value in _VARIABLES.items():
        expressions = [expression.replace(variable, value) for expression in expressions]
    known = yaml.safe_load((REPO / "tests" / "contract" / "chart" / "rules_test.yaml").read_text())
    with_gpus = [test for test in known["tests"] if any("DCGM_" in series["series"] for series in test["input_series"])]
    assert len(with_gpus) == 2  # honorLabels true and false
    for test in with_gpus:
        test["promql_expr_test"] = [{"expr": f"count({expression}) > bool 0", "eval_time": "15m", "exp_samples": [{"labels": "{}", "value": 1}]}
                                    for expression in expressions]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({**known, "rule_files": [str(CHART / "rules" / "quern.yaml")], "tests": with_gpus}))
    done = subprocess.run(["promtool", "test", "rules", "panels.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules_and_their_tests_pass():
    subprocess.run(["promtool", "check", "rules", CHART / "rules" / "quern.yaml"], check=True, capture_output=True)
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
