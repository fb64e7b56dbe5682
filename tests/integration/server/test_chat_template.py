"""--chat-template and --chat-template-name: templates from files, as Hugging Face's hub has them, in front of real models."""

import json

import pytest
import quern_serve

ASKED = [{"role": "user", "content": "Hi there"}]
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
SMALL = ("--kv-memory", "64MiB", "--max-context-tokens", "2048")


def prompt(server, **fields) -> str:
    """What the conversation becomes, in the model's tokens and back."""
    tokens = server.post("/tokenize", {"messages": ASKED, **fields}).json()
    assert "tokens" in tokens, tokens
    return server.post("/detokenize", {"tokens": tokens["tokens"]}).json()["prompt"]


def refused(*options) -> str:
    """The one line that a server ends with, and exit code 2."""
    done = quern_serve.run_to_end(quern_serve.model(quern_serve.SMOLLM2), "--port", "0", "--admin-port", "0", *options)
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if "cannot serve" in line]
    assert len(errors) == 1, done.stderr
    return errors[0]


def test_a_base_model_chats_with_a_template_from_a_file(tmp_path):
    file = tmp_path / "chat_template.jinja"
    file.write_text("{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<answer>{% endif %}\n")
    with quern_serve.Server(quern_serve.model(quern_serve.GEMMA), "--chat-template", str(file), *SMALL) as server:
        assert prompt(server) == "<bos><user>Hi there<answer>"
        reply = server.post("/v1/chat/completions", {"model": server.name, "messages": ASKED, "max_tokens": 4})
        assert reply.status_code == 200 and reply.json()["choices"][0]["message"]["role"] == "assistant"


def test_a_configuration_brings_its_tokens_and_tool_use(tmp_path):
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({
        "bos_token": {"__type": "AddedToken", "content": "<|im_start|>"}, "eos_token": "<|im_end|>", "model_max_length": 2048,
        "chat_template": [
            {"name": "default", "template": "{{ bos_token }}{{ messages[-1].content }}{{ eos_token }}"},
            {"name": "tool_use", "template": "{% for t in tools %}{{ t.function.name }}{% endfor %}<tool_call>{{ messages[-1].content }}"},
            {"name": "shout", "template": "{{ messages[-1].content | upper }}"}]}))
    model = quern_serve.model(quern_serve.SMOLLM2)
    with quern_serve.Server(model, "--chat-template", str(file), *SMALL) as server:
        assert prompt(server) == "<|im_start|>Hi there<|im_end|>"
        assert prompt(server, tools=[TOOL]) == "get_weather<tool_call>Hi there"
        assert prompt(server, tools=[TOOL], tool_choice="none") == "<|im_start|>Hi there<|im_end|>"
    with quern_serve.Server(model, "--chat-template", str(file), "--chat-template-name", "shout", *SMALL) as server:
        assert prompt(server) == "HI THERE"


def test_a_request_may_set_what_the_template_asks_for(tmp_path):
    file = tmp_path / "thinking.jinja"
    file.write_text("{{ messages[-1].content }}{% if enable_thinking is defined and not enable_thinking %} no thinking{% endif %}"
                    "{% if options is mapping %} {{ options | tojson }}{% endif %}")
    with quern_serve.Server(quern_serve.model(quern_serve.SMOLLM2), "--chat-template", str(file), *SMALL) as server:
        assert prompt(server) == "Hi there"
        assert prompt(server, chat_template_kwargs={"enable_thinking": False}) == "Hi there no thinking"
        assert prompt(server, chat_template_kwargs={"options": {"b": [1.5], "a": None}}) == 'Hi there {"b": [1.5], "a": null}'

        def counted(path, **fields):
            reply = server.post(path, {"model": server.name, "max_tokens": 1, **fields})
            assert reply.status_code == 200, reply.text
            return reply.json()["usage"]

        with_kwargs = {"chat_template_kwargs": {"enable_thinking": False}}
        without = counted("/v1/chat/completions", messages=ASKED)["prompt_tokens"]
        assert counted("/v1/chat/completions", messages=ASKED, **with_kwargs)["prompt_tokens"] > without
        reply = server.post("/v1/responses", {"model": server.name, "max_output_tokens": 1, "input": "Hi there", **with_kwargs})
        assert reply.json()["usage"]["input_tokens"] > without, reply.text
        reply = server.post("/tokenize", {"messages": ASKED, "chat_template_kwargs": {"messages": []}})
        assert reply.status_code == 400 and "which the request itself has" in reply.json()["error"]["message"], reply.text


def test_a_file_that_cannot_be_used_is_told_before_the_weights_are_read(tmp_path):
    assert "nowhere.jinja: there is no such file: expected a Jinja template" in refused("--chat-template", str(tmp_path / "nowhere.jinja"))
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"bos_token": "<s>"}')
    assert "it has no 'chat_template'. Where a model's lies in a file of its own, chat_template.jinja" in refused("--chat-template", str(config))
    config.write_text('{"chat_template": [{"name": "rag", "template": "x"}]}')
    assert "no chat template named 'default', but 'rag': choose with --chat-template-name" in refused("--chat-template", str(config))
    bad = tmp_path / "bad.jinja"
    bad.write_text("a\n{% include 'x' %}")
    assert "line 2: the tag 'include' is not supported" in refused("--chat-template", str(bad))
    assert "no chat template named 'rag', but 'default'" in refused("--chat-template-name", "rag")


def test_clients_of_a_base_model_see_no_path(tmp_path):
    with quern_serve.Server(quern_serve.model(quern_serve.GEMMA), *SMALL) as server:
        reply = server.post("/v1/chat/completions", {"model": server.name, "messages": ASKED, "max_tokens": 1})
        error = reply.json()["error"]
        assert error["code"] == "no_chat_template" and "cannot chat: the model has no chat template" in error["message"], reply.text
        assert ".gguf" not in error["message"], "the path is the log's"
        logged = f"no chat: {quern_serve.model(quern_serve.GEMMA)}: the model has no chat template"
        assert any(logged in line for line in list(server.log)), server.log


@pytest.mark.parametrize("hostile,says", [
    ("{% for a in range(99999) %}{% for b in range(99999) %}{% set x = b %}{% endfor %}{% endfor %}", "takes more than"),
    ("{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "memory"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "the model's chat template, line 1: "),
    ("{{ raise_exception('roles must alternate') }}", "the model's chat template: roles must alternate"),
])
def test_a_hostile_template_costs_its_request_alone(tmp_path, hostile, says):
    file = tmp_path / "hostile.jinja"
    file.write_text("{% if messages[0].content == 'go' %}" + hostile + "{% endif %}{{ messages[0].content }}")
    with quern_serve.Server(quern_serve.model(quern_serve.SMOLLM2), "--chat-template", str(file), *SMALL) as server:
        reply = server.post("/v1/chat/completions", {"model": server.name, "messages": [{"role": "user", "content": "go"}], "max_tokens": 1})
        assert reply.status_code == 400 and says in reply.json()["error"]["message"], reply.text
        assert prompt(server) == "Hi there"
