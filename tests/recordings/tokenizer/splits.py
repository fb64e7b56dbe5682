#!/usr/bin/env python3
"""Records how Hugging Face's `tokenizers` cuts the corpus into words, for each tokenizer.ggml.pre that Quern knows.

    tests/recordings/tokenizer/splits.py        # with the Python of hack/setup, whose `tokenizers` is the one recorded

Writes splits.json: {"pre": [...], "texts": [[text, {lengths: [pre, ...]}], ...]}, where `lengths` are the pieces' sizes in
bytes, with spaces between. PUBLISHED has each family's "pre_tokenizer" as the named model's tokenizer.json has it on
huggingface.co: written from there, and not from Quern's source, so that the two check each other.
"""

import json
from pathlib import Path

import corpus
import tokenizers

HERE = Path(__file__).parent
ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
REST = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + REST
QWEN2 = ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + REST
TEKKEN = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
          r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + REST)
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{ENDINGS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{ENDINGS}?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + REST)


def split(*expressions):
    """Split steps, then bytes to letters."""
    steps = [{"type": "Split", "pattern": {"Regex": e}, "behavior": "Isolated", "invert": False} for e in expressions]
    return {"type": "Sequence", "pretokenizers": [
        *steps, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}


GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, GPT2]}
PUBLISHED = {
    "smollm": DIGITS,  # HuggingFaceTB/SmolLM2-135M-Instruct
    "starcoder": DIGITS,  # bigcode/starcoder
    "refact": DIGITS,  # smallcloudai/Refact-1_6B-fim
    "gpt-2": GPT2,  # openai-community/gpt2
    "llama-bpe": split(LLAMA3),  # meta-llama/Meta-Llama-3-8B
    "dbrx": split(LLAMA3),  # databricks/dbrx-base
    "qwen2": split(QWEN2),  # Qwen/Qwen2-7B
    "tekken": split(TEKKEN),  # mistralai/Mistral-Nemo-Base-2407
    "gpt-4o": split(O200K),  # Xenova/gpt-4o
}


def load(pre_tokenizer):
    empty = {"version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None, "decoder": None,
             "model": {"type": "BPE", "vocab": {}, "merges": []}}
    return tokenizers.Tokenizer.from_str(json.dumps({**empty, "pre_tokenizer": pre_tokenizer})).pre_tokenizer


def main():
    families = {name: load(published) for name, published in PUBLISHED.items()}
    texts = []
    for _, text in corpus.small():
        pieces = {}
        for name, family in families.items():
            # One letter stands for each byte.
            lengths = " ".join(str(len(piece)) for piece, _ in family.pre_tokenize_str(text)) if text else ""
            pieces.setdefault(lengths, []).append(name)
        texts.append([text, pieces])
    lines = ",\n".join(json.dumps(entry, ensure_ascii=True, separators=(",", ":")) for entry in texts)
    head = json.dumps({"source": f"tokenizers {tokenizers.__version__}", "pre": list(PUBLISHED)})
    (HERE / "splits.json").write_text(f'{head[:-1]}, "texts": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
