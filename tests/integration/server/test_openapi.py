"""GET /openapi.json says what the server does: schemathesis makes requests of it, right ones and wrong ones, and looks at the answers."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import quern_serve
import requests
from schemathesis.specs.openapi.definitions import OPENAPI_31

CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
          "response_schema_conformance", "negative_data_rejection", "unsupported_method", "allow_header_conformance"]
# For a longer search, with every operation in both: QUERN_SCHEMATHESIS_EXAMPLES=300.
EXAMPLES = int(os.environ.get("QUERN_SCHEMATHESIS_EXAMPLES", "6"))
LONG = EXAMPLES > 50

# Parameters that exclude each other, or are right only with another one: a request that has all of them is refused for that
# alone, whatever else is wrong with it.
NEED_OTHERS = {"best_of", "min_tokens", "stream_options", "top_logprobs", "logit_bias", "tool_choice", "tools", "include", "text", "dimensions",
               "response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"}
# What all requests for text read with the same lines: looked at with completions, which are the quickest.
SHARED = {"temperature", "top_p", "top_k", "min_p", "typical_p", "frequency_penalty", "presence_penalty", "repetition_penalty", "seed",
          "stop", "ignore_eos", "priority", "cache_salt"}


@pytest.fixture(scope="module")
def server():
    with quern_serve.Server(quern_serve.model(quern_serve.SMOLLM2), "--threads", "2", "--kv-memory", "64MiB",
                            "--max-context-tokens", "40", "--max-body", "256KiB") as server:
        yield server


@pytest.fixture(scope="module")
def document(server):
    reply = requests.get(server.url + "/openapi.json", timeout=quern_serve.PATIENCE)
    assert reply.status_code == 200 and reply.headers["Content-Type"].startswith("application/json")
    return reply.json()


def test_the_document_is_openapi_and_names_every_route(server, document):
    jsonschema.Draft202012Validator(OPENAPI_31).validate(document)
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for path, operations in document["paths"].items():
        allowed = requests.options(server.url + path.replace("{id}", "x"), timeout=quern_serve.PATIENCE).headers["Allow"]
        assert {name.upper() for name in operations} == set(allowed.split(", ")) - {"HEAD", "OPTIONS"}, path
    source = (quern_serve.ROOT / "runtime" / "server" / "api.cc").read_text()
    public = source[source.index("Api::PublicRouter()"):source.index("Api::AdminRouter()")]
    routes = re.findall(r'(?:router\.Add\("[A-Z]+", |add_generation\()"(/[^"]+)"', public)
    assert len(routes) >= 9
    assert set(document["paths"]) == {route.replace("...", "") for route in routes} | {"/health/live", "/health/ready"}


def of_this_server(document, name, vocabulary):
    """What the document cannot know: the only model, and the ids of its tokens."""
    document = copy.deepcopy(document)
    schemas = document["components"]["schemas"]
    schemas["model"] = {"const": name}
    schemas["token_ids"]["items"]["maximum"] = schemas["DetokenizeRequest"]["properties"]["tokens"]["items"]["maximum"] = vocabulary - 1
    for request in ("TokenizeRequest", "DetokenizeRequest"):
        for form in schemas[request].get("anyOf", [schemas[request]]):
            form["properties"]["model"] = {"enum": [name, "", None]}
    # This model has no BOS, so that it needs a token.
    for prompt in (schemas["prompt"], schemas["EmbeddingRequest"]["properties"]["input"]):
        for form in prompt["anyOf"] + prompt["anyOf"][2]["items"]["anyOf"]:
            if form.get("type") == "string":
                form["minLength"] = 1
    return document


def that_goes_together(document):
    """Requests with all of these parameters are taken, so that one thing wrong is what a refusal is for."""
    document = copy.deepcopy(document)
    schemas = document["components"]["schemas"]

    def changes_nothing(schema):
        schema = schemas[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
        return None in schema.get("enum", []) or schema.get("type") == "null" or schema.keys() <= {"description"}

    for name, schema in schemas.items():
        for form in schema.get("anyOf", [schema]) if name.endswith("Request") else []:
            gone = NEED_OTHERS | (set() if name == "CompletionRequest" else SHARED)
            form["properties"] = {key: value for key, value in form["properties"].items()
                                  if key in form["required"] or not (key in gone or changes_nothing(value))}
    schemas["CompletionRequest"]["properties"]["max_tokens"]["default"] = 1  # what is sent where nothing else is wanted
    return document


def search(server, document, directory, *options):
    """Of a run without findings: how many requests it made."""
    schema = directory / "openapi.json"
    schema.write_text(json.dumps(document))
    result = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "run", schema, "--url", server.url, "--checks", ",".join(CHECKS), "--seed", "1",
         "--continue-on-failure", "--suppress-health-check", "all", "--warnings", "off", "--generation-database", "none",
         "--request-timeout", str(quern_serve.PATIENCE), "--no-color", *options],
        cwd=directory, capture_output=True, text=True, timeout=3600 if LONG else 400, check=False)
    assert result.returncode == 0, result.stdout[-20000:] + result.stderr[-2000:]
    print(result.stdout)
    return int(re.search(r"([\d,]+) generated", result.stdout).group(1).replace(",", ""))


def counted(server, status):
    text = requests.get(server.admin + "/metrics", timeout=quern_serve.PATIENCE).text
    return {name: int(value) for name, value in re.findall(rf'quern_http_requests_total{{[^}}]*handler="(\w+)",status="{status}"}} (\d+)', text)}


def test_every_parameter_within_its_bounds_and_beyond(server, document, tmp_path):
    """Each value that a schema has a bound for, one at a time. The messages of chats are those of /tokenize, where they cost no answer."""
    ours = that_goes_together(of_this_server(document, server.name, 49152))
    options = ["--phases", "coverage,fuzzing", "--max-examples", str(EXAMPLES)] if LONG else [
        "--phases", "coverage", "--exclude-path", "/v1/chat/completions"]
    assert search(server, ours, tmp_path, *options) > 1000
    taken, refused = counted(server, 200), counted(server, 400)
    for handler, at_least in {"completions": 50, "responses": 50, "embeddings": 10, "tokenize": 50, "detokenize": 4}.items():
        assert taken[handler] >= at_least and refused[handler] >= at_least, (taken, refused)


def test_requests_with_any_parameters_at_once(server, document, tmp_path):
    ours = of_this_server(document, server.name, 49152)
    assert search(server, ours, tmp_path, "--phases", "fuzzing", "--max-examples", str(EXAMPLES)) > 6 * EXAMPLES


def test_a_document_that_is_wrong_is_found_out(server, document, tmp_path):
    ours = of_this_server(document, server.name, 49152)
    ours["components"]["schemas"]["DetokenizeRequest"]["properties"]["tokens"]["items"]["maximum"] = 100
    ours["components"]["schemas"]["Detokenized"]["properties"]["prompt"] = {"type": "integer"}
    with pytest.raises(AssertionError) as found:
        search(server, ours, tmp_path, "--phases", "coverage", "--include-path", "/detokenize")
    assert "Schema-violating request accepted" in str(found.value) and "Response violates schema" in str(found.value)
