"""Real models' chat templates, rendered by Quern's interpreter and by Python's jinja2 as transformers sets it up: the same bytes.

The templates are those of hack/setup --templates; none of them is in the repository.
"""

import copy
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conversations import CASES
from reference import NOW, Reference

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "hack" / "lib"))
from quern_dev import templates  # noqa: E402

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
# Those that end without the assistant's turn begun, too.
WITHOUT_PROMPT = {"turns", "turns without system", "thought last", "answer"}
# What must be there, by the beginnings of the files' names: the families that people serve.
FAMILIES = {
    "Llama": ("meta-llama-Llama-3.1-8B", "meta-llama-Llama-3.2-3B", "Featherless-Chat-Models-llama2"),
    "Gemma": ("google-gemma-2-2b", "unsloth-gemma-3-270m", "google-gemma-4-31B"),
    "Qwen": ("Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B", "Qwen-Qwen3-Coder-30B", "Qwen-QwQ-32B"),
    "Mistral": ("mistralai-Mistral-7B-Instruct-v0.3", "mistralai-Mistral-Nemo", "mistralai-Mistral-Small-3.1"),
    "Phi": ("microsoft-Phi-3.5-mini", "microsoft-phi-4"),
    "DeepSeek": ("deepseek-ai-DeepSeek-R1-Distill-Llama", "deepseek-ai-DeepSeek-V3.1"),
    "gpt-oss": ("openai-gpt-oss-120b", "unsloth-gpt-oss-20b"),
    "SmolLM": ("HuggingFaceTB-SmolLM2-135M", "HuggingFaceTB-SmolLM3-3B"),
    "Granite": ("ibm-granite-granite-3.3-2B", "ibm-granite-granite-4.0"),
}


def sources() -> dict[str, str]:
    found = {path.stem: path.read_bytes().decode() for path in sorted(templates.root().glob("*.jinja"))}
    if not found:
        raise FileNotFoundError(f"{templates.root()} has no templates: run hack/setup --templates")
    return found


@pytest.fixture(scope="module")
def rendered():
    """[(template's name, conversation's name, what jinja2 makes of it, what Quern does)]"""
    reference, names, lines, expected = Reference(), [], [], []
    for name, source in sources().items():
        is_first = True
        for conversation, (messages, tools, variables) in CASES.items():
            for prompt in (True, False) if conversation in WITHOUT_PROMPT else (True,):
                case = {"messages": messages, "tools": tools, "add_generation_prompt": prompt, "variables": variables}
                lines.append(json.dumps({**case, **({"template": source, "tokens": TOKENS} if is_first else {})}))
                names.append((name, conversation))
                expected.append(reference.render(source, {**copy.deepcopy(case), "tokens": TOKENS}))
                is_first = False
    program = Path(os.environ.get("QUERN_BIN", ROOT / "build" / "release" / "bin")) / "render_templates"
    done = subprocess.run([program, str(int(NOW.timestamp()))], input="\n".join(lines) + "\n", capture_output=True, text=True,
                          env={**os.environ, "TZ": "UTC"}, timeout=500, check=True)
    got = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(got) == len(expected)
    return [(*name, theirs, ours) for name, theirs, ours in zip(names, expected, got, strict=True)]


def first_difference(theirs: str, ours: str) -> str:
    at = len(os.path.commonprefix([theirs, ours]))
    return f"at {at}: jinja2 {theirs[max(0, at - 40):at + 40]!r}, quern {ours[max(0, at - 40):at + 40]!r}"


def test_every_family_is_there():
    names = sources()
    assert len(names) > 700
    for family, beginnings in FAMILIES.items():
        for beginning in beginnings:
            assert any(name.startswith(beginning) for name in names), f"{family}: {beginning}"


def test_texts_are_the_same(rendered):
    wrong, same = [], 0
    for name, conversation, theirs, ours in rendered:
        if "text" not in theirs:
            continue
        if "error" in ours:
            wrong.append(f"{name}, {conversation}: quern fails: {ours['error']}")
        elif theirs["text"] != ours["text"]:
            wrong.append(f"{name}, {conversation}: {first_difference(theirs['text'], ours['text'])}")
        else:
            same += 1
    assert not wrong, f"{len(wrong)} differ, {same} are the same; the first:\n" + "\n".join(wrong[:20])
    assert same > 25_000
    print(f"{same} texts of {len({name for name, *_ in rendered})} templates are the same")


def test_what_a_template_refuses_is_refused_in_its_words(rendered):
    wrong, same = [], 0
    for name, conversation, theirs, ours in rendered:
        if not theirs.get("raised"):
            continue
        if ours.get("error") == theirs["error"] and ours["code"] == "invalid_argument":
            same += 1
        else:
            wrong.append(f"{name}, {conversation}: {theirs['error']!r}, but quern: {ours}"[:500])
    assert not wrong, f"{len(wrong)} differ; the first:\n" + "\n".join(wrong[:20])
    assert same > 1_000


def test_what_jinja2_cannot_render_is_an_error_too(rendered):
    wrong, codes = [], Counter()
    for name, conversation, theirs, ours in rendered:
        if "text" in theirs or theirs["raised"]:
            continue
        if "error" in ours:
            codes[ours["code"]] += 1
        else:
            wrong.append(f"{name}, {conversation}: jinja2 says {theirs['error']!r}")
    assert not wrong, f"{len(wrong)} differ; the first:\n" + "\n".join(wrong[:20])
    assert codes["resource_exhausted"] == 0 and codes["internal"] == 0, codes
