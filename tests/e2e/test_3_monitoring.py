"""Every query of every dashboard returns data from the cluster's Prometheus while an endpoint is used.

But for those of GPUs, which are not here: tests/contract/chart evaluates them on series as dcgm-exporter's.
"""

import json
import math
import re

import pytest
from conftest import NAMESPACE, REPO

from quern_dev import kubectl as kube
from quern_dev.load import Load

NAME = "observed"
_VARIABLES = {"$namespace": NAMESPACE, "$model": NAME, "$__rate_interval": "1m", "$__interval": "15s"}


def queries() -> list:
    found = []
    for path in sorted((REPO / "charts" / "quern" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                if ":quern_gpu" in target["expr"] or "_per_gpu:" in target["expr"]:
                    continue
                found.append(pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}".replace(" ", "_")))
    return found


@pytest.fixture(scope="module")
def used_endpoint(world):
    world.apply_endpoint(NAME, scaling={"minReplicas": 1, "maxReplicas": 1})
    world.wait_ready(NAME)
    with world.through_service(NAME) as url, Load(url, NAME, clients=2, max_tokens=24, limit_seconds=900) as load:
        # Rates need two scrapes of a counter that has moved.
        kube.wait(lambda: any(v > 0 for _, v in world.prometheus(f'rate(quern_generation_tokens_total{{model="{NAME}"}}[1m])')),
                  90, lambda: f"Prometheus to see tokens; load {load.totals}")
        kube.wait(lambda: load.totals.requests >= 4, 60, "four finished requests")
        yield NAME
    world.delete(NAME)


def fill_in(query):
    for variable, value in _VARIABLES.items():
        query = query.replace(variable, value)
    assert "$" not in query, f"a variable that the test does not know: {query}"
    return query


@pytest.mark.parametrize("query", queries())
def test_a_panel_s_query_returns_data(world, used_endpoint, query):
    def figures():
        return [value for _, value in world.prometheus(fill_in(query)) if not math.isnan(value)]
    assert kube.wait(figures, 45, f"a figure for {fill_in(query)}", every=1.0)


def test_the_dashboards_variables_have_values(world, used_endpoint):
    dashboard = json.loads((REPO / "charts" / "quern" / "dashboards" / "quern-endpoints.json").read_text())
    wanted = {"namespace": NAMESPACE, "model": NAME}
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
        def values():
            return {labels.get(label) for labels, _ in world.prometheus(fill_in(selector))}
        kube.wait(lambda: wanted[variable["name"]] in values(), 45, lambda: f"{wanted[variable['name']]} among {values()}", every=1.0)


def test_prometheus_scrapes_the_operator_and_the_serving_pods(world, used_endpoint):
    def samples():
        # Of these alone: the pods of an endpoint that has just been deleted are targets still, and down.
        return world.prometheus(f'up{{endpoint="{NAME}"}}') + world.prometheus('up{app="quern-operator"}')

    def all_up():
        found = samples()
        return ({labels["app"] for labels, _ in found} == {"quern-operator", "quern-serve"}
                and all(value == 1 for _, value in found))
    kube.wait(all_up, 45, lambda: f"every target to be up: {samples()}", every=1.0)
