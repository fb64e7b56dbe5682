"""API keys: who may use the server, and whose figures are counted."""

import hashlib
import json
import os

import openai
import pytest
import quern_serve
import requests

KEY_A, KEY_B, KEY_C = (f"sk-{letter * 20}" for letter in "abc")
TEAM_A = {"name": "team-a", "keys": [KEY_A], "weight": 2}
TEAM_B = {"name": "team-b", "key_sha256": [hashlib.sha256(KEY_B.encode()).hexdigest()]}


def write(path, tenants):
    """As a Secret's mount is changed: by a rename."""
    new = path.with_suffix(".new")
    new.write_text(tenants if isinstance(tenants, str) else json.dumps({"tenants": tenants}))
    os.rename(new, path)


@pytest.fixture
def served(tmp_path):
    path = tmp_path / "tenants.json"
    write(path, [TEAM_A, TEAM_B])
    with quern_serve.Server(quern_serve.model(quern_serve.SMOLLM2), "--kv-memory", "64MiB", "--max-context-tokens", "1024",
                            "--tenants", str(path)) as server:
        yield server, path


def client(server, key):
    return openai.OpenAI(base_url=server.url + "/v1", api_key=key, max_retries=0, timeout=quern_serve.PATIENCE)


def complete(server, key, **extra):
    return client(server, key).completions.create(model=server.name, prompt="One, two,", max_tokens=4, temperature=0,
                                                  extra_body={"ignore_eos": True, **extra})


def status(server, key) -> int:
    return requests.get(server.url + "/v1/models", headers={"Authorization": f"Bearer {key}"},
                        timeout=quern_serve.PATIENCE).status_code


def test_tenants_are_known_by_their_keys_and_counted_apart(served):
    server, _ = served
    tenants = {"quern_tenant_prompt_tokens_total", "quern_tenant_generation_tokens_total", "quern_tenant_requests_total"}
    begun = {sample for sample in server.metrics() if sample.split("{")[0] in tenants}
    assert len(begun) == 2 * (1 + 1 + 6)  # before anyone has asked

    without = server.post("/v1/completions", {"model": server.name, "prompt": "a"})
    assert without.status_code == 401 and without.headers["WWW-Authenticate"] == "Bearer"
    assert without.json()["error"]["code"] == "invalid_api_key"
    with pytest.raises(openai.AuthenticationError) as wrong:
        complete(server, KEY_C)
    assert wrong.value.code == "invalid_api_key" and KEY_C not in str(wrong.value)

    assert complete(server, KEY_A, user="team-b").usage.completion_tokens == 4
    for _ in range(2):
        answer = complete(server, KEY_B, priority=3, cache_salt="pepper")
    quern_serve.wait_for(lambda: server.metric("quern_tenant_requests_total", tenant="team-b", reason="length") == 2, "counts")
    assert server.metric("quern_tenant_requests_total", tenant="team-a", reason="length") == 1
    assert server.metric("quern_tenant_generation_tokens_total", tenant="team-a") == 4
    assert server.metric("quern_tenant_generation_tokens_total", tenant="team-b") == 8
    assert server.metric("quern_tenant_prompt_tokens_total", tenant="team-b") == 2 * answer.usage.prompt_tokens
    with pytest.raises(openai.BadRequestError) as refused:
        complete(server, KEY_A, priority=-1)
    assert refused.value.param == "priority"
    assert not any(key in line for line in server.log for key in (KEY_A, KEY_B, KEY_C))


def test_changed_file_is_read_again_and_a_bad_one_keeps_the_old_keys(served):
    server, path = served
    assert (status(server, KEY_A), status(server, KEY_C)) == (200, 401)
    write(path, [TEAM_A, TEAM_B, {"name": "team-c", "keys": [KEY_C]}])
    quern_serve.wait_for(lambda: status(server, KEY_C) == 200, "the new key")
    assert server.metric("quern_tenants_file_valid") == 1
    write(path, '{"tenants": [{"name": "team-a", "keys": ["' + KEY_A + '"')
    quern_serve.wait_for(lambda: server.metric("quern_tenants_file_valid") == 0, "the gauge")
    assert (status(server, KEY_A), status(server, KEY_B), status(server, KEY_C)) == (200, 200, 200)
    errors = [line for line in server.log if " error " in line]
    assert len(errors) == 1 and f"{path}: line 1, column" in errors[0] and KEY_A not in errors[0], errors
    write(path, [TEAM_A])
    quern_serve.wait_for(lambda: status(server, KEY_C) == 401, "the end of the old keys")
    assert server.metric("quern_tenants_file_valid") == 1
    assert not any('tenant="team-c"' in sample for sample in server.metrics())


@pytest.mark.parametrize("text,says", [
    (None, "No such file"),
    ("{}", "tenants must be an array of 1 to 1024 tenants"),
    ('{"tenants": [{"name": "a", "keys": ["sk-aaaaaaaaaaaaaaaaaaaa"], "wieght": 2}]}', "did you mean 'weight'?"),
])
def test_bad_file_at_start_is_one_clear_line_and_exit_code_2(tmp_path, text, says):
    path = tmp_path / "tenants.json"
    if text:
        write(path, text)
    result = quern_serve.run_to_end(quern_serve.model(quern_serve.SMOLLM2), "--port", "0", "--admin-port", "0",
                                    "--tenants", str(path))
    errors = [line for line in result.stderr.splitlines() if " error " in line]
    assert result.returncode == 2, result.stderr
    assert len(errors) == 1 and f"--tenants: {path}: " in errors[0] and says in errors[0], result.stderr
