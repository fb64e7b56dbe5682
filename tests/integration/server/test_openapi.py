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

CONTEXT = 512
MODEL = "SmolLM2-135M-Instruct.Q4_1"  # the document's examples name it
VOCABULARY, WIDTH = 49152, 576
# For a longer search: QUERN_SCHEMATHESIS_EXAMPLES=300. The seed is fixed, so that CI's requests are the same each time.
EXAMPLES = int(os.environ.get("QUERN_SCHEMATHESIS_EXAMPLES", "25"))
KEY = ("--header", "Authorization: Bearer sk-0123456789abcdef")
PHASES = "examples,coverage,fuzzing,stateful"

# From these the coverage phase goes, one parameter at a time: a request that is taken, so that what is refused is refused for
# the one that was changed. All others are null or as the document says.
CALL = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
MESSAGES = [{"role": "user", "content": "Hi"}]
TOOLS = {"tools": [{"type": "function", "function": CALL}], "tool_choice": "auto"}
BASELINES = {
    "CompletionRequest": {"prompt": "The sea is"},
    "ChatRequest": {"messages": MESSAGES, "logprobs": True, **TOOLS},
    "ResponseRequest": {"input": "Hi", "tools": [{"type": "function", **CALL}], "tool_choice": "auto"},
    "EmbeddingRequest": {"input": "The sea is"},
    "TokenizeRequest": {"prompt": "The sea is", "messages": MESSAGES, **TOOLS},
    "DetokenizeRequest": {"tokens": [504, 3786, 314]},
}


def start(*options):
    return quern_serve.Server(quern_serve.model(quern_serve.SMOLLM2), "--threads", "2", "--kv-memory", "64MiB",
                              "--max-context-tokens", str(CONTEXT), "--max-body", "256KiB", *options)


@pytest.fixture(scope="module")
def server():
    with start() as server:
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


def written_up_to(most: int) -> str:
    """The pattern of the numbers from 0 to `most`, which has at least two digits."""
    digits = str(most)
    forms = ["0", f"[1-9][0-9]{{0,{len(digits) - 2}}}", digits]
    for i, digit in enumerate(digits):
        low = 0 if i else 1
        if int(digit) > low:
            forms.append(f"{digits[:i]}[{low}-{int(digit) - 1}][0-9]{{{len(digits) - 1 - i}}}")
    return f"^({'|'.join(forms)})$"


def of_this_server(document):
    """What the document cannot know: the only model, the ids of its tokens, its context and its width."""
    document = copy.deepcopy(document)
    schemas = document["components"]["schemas"]
    schemas["model"] = {"const": MODEL}
    document["paths"]["/v1/models/{id}"]["get"]["parameters"][0]["schema"] = {"type": "string", "enum": [MODEL]}
    schemas["token_ids"]["items"]["maximum"] = schemas["DetokenizeRequest"]["properties"]["tokens"]["items"]["maximum"] = VOCABULARY - 1
    schemas["logit_bias"]["propertyNames"]["pattern"] = written_up_to(VOCABULARY - 1)
    schemas["max_tokens"]["maximum"] = schemas["CompletionRequest"]["properties"]["max_tokens"]["maximum"] = CONTEXT
    schemas["EmbeddingRequest"]["properties"]["dimensions"] = {"enum": [WIDTH, None]}
    for request in ("TokenizeRequest", "DetokenizeRequest"):
        for form in schemas[request].get("anyOf", [schemas[request]]):
            form["properties"]["model"] = {"enum": [MODEL, "", None]}
    # This model has no BOS, so that it needs a token.
    for prompt in (schemas["prompt"], schemas["EmbeddingRequest"]["properties"]["input"]):
        for form in prompt["anyOf"] + prompt["anyOf"][2]["items"]["anyOf"]:
            if form.get("type") == "string":
                form["minLength"] = 1
    return document


def with_baselines(document):
    document = copy.deepcopy(document)
    schemas = document["components"]["schemas"]

    def takes_null(schema):
        return not schema.keys() - {"description"} or "null" in schema.get("type", []) or None in schema.get("enum", []) or any(
            map(takes_null, schema.get("anyOf", [])))

    for choice in schemas["structured_outputs"]["properties"].values():  # of which there may be one
        choice["default"] = None
    # What a function returned is taken behind its call.
    schemas["input"]["anyOf"][1]["prefixItems"] = [{"const": {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}}]
    schemas["input_item"]["anyOf"][2]["properties"]["call_id"] = {"const": "call_1"}
    for request, baseline in BASELINES.items():
        for form in schemas[request].get("anyOf", [schemas[request]]):
            for name, schema in form["properties"].items():
                if "$ref" in schema:
                    schema = schemas[schema["$ref"].rsplit("/", 1)[1]]
                if name in baseline and schema.get("type") != "null":
                    form["properties"][name] = {**schema, "default": baseline[name]}
                elif takes_null(schema) and "default" not in schema:
                    form["properties"][name] = {**schema, "default": None}
                elif "default" in schema:
                    form["properties"][name] = schema
    return document


def search(server, document, directory, *options):
    """Of a run without findings: what it said."""
    (directory / "openapi.json").write_text(json.dumps(document))
    (directory / "schemathesis.toml").write_text("[checks.positive_data_acceptance]\nexpected-statuses = [200]\n")
    result = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "run", "openapi.json", "--url", server.url, "--checks", "all", "--seed", "1",
         "--continue-on-failure", "--suppress-health-check", "all", "--warnings", "off", "--generation-database", "none",
         "--max-examples", str(EXAMPLES), "--max-response-time", str(quern_serve.PATIENCE), "--request-timeout", str(quern_serve.PATIENCE), "--no-color", *options],
        cwd=directory, capture_output=True, text=True, timeout=3600 if EXAMPLES > 50 else 600, check=False,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(Path(__file__).with_name("openapi_hooks.py"))})
    assert result.returncode == 0, result.stdout[-20000:] + result.stderr[-2000:]
    print(result.stdout)
    return result.stdout


def counted(server, status):
    text = requests.get(server.admin + "/metrics", timeout=quern_serve.PATIENCE).text
    return {name: int(value) for name, value in re.findall(rf'quern_http_requests_total{{[^}}]*handler="(\w+)",status="{status}"}} (\d+)', text)}


def test_every_operation_does_what_the_document_says(server, document, tmp_path):
    said = search(server, with_baselines(of_this_server(document)), tmp_path, "--phases", PHASES)
    assert f"Tested: {sum(map(len, document['paths'].values()))}" in said
    for phase in PHASES.split(","):
        assert f"✅ {phase.capitalize()}" in said, said
    taken, refused = counted(server, 200), counted(server, 400)
    for handler, least in {"completions": (200, 250), "chat_completions": (300, 500), "responses": (300, 500), "embeddings": (40, 50),
                          "tokenize": (150, 300), "detokenize": (10, 20)}.items():
        assert taken[handler] >= least[0] and refused[handler] >= least[1], (taken, refused)


def test_with_tenants_it_asks_for_keys_where_the_document_says(tmp_path):
    (tmp_path / "tenants.json").write_text(json.dumps({"tenants": [{"name": "one", "keys": [KEY[1].split()[-1]]}]}))
    with start("--tenants", str(tmp_path / "tenants.json")) as server:
        document = requests.get(server.url + "/openapi.json", timeout=quern_serve.PATIENCE).json()
        search(server, with_baselines(of_this_server(document)), tmp_path, "--phases", "coverage", "--exclude-path-regex", "/v1/[cer]|/tokenize", *KEY)
        assert counted(server, 401)["models"] > 0 and counted(server, 401)["detokenize"] > 0
        del document["paths"]["/health/live"]["get"]["security"]  # which asks for none
        with pytest.raises(AssertionError, match="API accepts"):
            search(server, with_baselines(of_this_server(document)), tmp_path, "--phases", "coverage", "--include-path", "/health/live", *KEY)


def test_a_document_that_is_wrong_is_found_out(server, document, tmp_path):
    ours = with_baselines(of_this_server(document))
    schemas = ours["components"]["schemas"]
    schemas["DetokenizeRequest"]["properties"]["tokens"]["items"]["maximum"] = 100
    schemas["Detokenized"]["properties"]["prompt"] = {"type": "integer"}
    schemas["TokenizeRequest"]["anyOf"][0]["properties"]["suffix"] = {"type": "string"}
    with pytest.raises(AssertionError) as found:
        search(server, ours, tmp_path, "--phases", "coverage", "--include-path", "/detokenize", "--include-path", "/tokenize")
    for finding in ("Schema-violating request accepted", "Response violates schema", "Schema-valid request rejected"):
        assert finding in str(found.value)
