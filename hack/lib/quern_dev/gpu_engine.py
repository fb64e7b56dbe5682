"""A real model through the CUDA backend beside the CPU's in float32: what hack/gpu-check asks of the whole engine."""

import json
import math
from pathlib import Path

# Token ids of a sequence that every vocabulary has.
_FIRST_ID, _ID_STEP, _ID_RANGE = 13, 7919, 20000
_REFERENCE_TOP, _TOP = 20, 400
# Of the CPU's float32 distribution over the next token from the GPU's, in nats: what bfloat16 activations cost is a few thousandths.
MOST_MEAN_KL = 0.02
# A next token that the reference prefers by so much, in logits, must be the GPU's, too.
DECIDED = 0.5


def write_tokens(path: Path, count: int) -> Path:
    path.write_text("\n".join(str(_FIRST_ID + i * _ID_STEP % _ID_RANGE) for i in range(count)) + "\n")
    return path


def logits_command(program: Path, model: Path, tokens: Path, device: str) -> list:
    options = ["--float32", "--top", _REFERENCE_TOP] if device == "cpu" else ["--top", _TOP]
    return [program, "logits", model, "--tokens", tokens, "--json", "--device", device, *options]


def _divergence(reference: dict, other: dict) -> float:
    """KL in nats over the reference's likeliest tokens and everything else as one; a token that `other` does not list has at most
    the probability of its last one there."""
    listed = dict(other["top"])
    least = min(listed.values())
    kl, rest_p, rest_q = 0.0, 1.0, 1.0
    for token, logit in reference["top"]:
        log_p = logit - reference["logsumexp"]
        log_q = listed.get(token, least) - other["logsumexp"]
        kl += math.exp(log_p) * (log_p - log_q)
        rest_p -= math.exp(log_p)
        rest_q -= math.exp(log_q)
    if rest_p > 1e-9:
        kl += rest_p * math.log(rest_p / max(rest_q, 1e-9))
    return max(kl, 0.0)


def _positions(text: str) -> list:
    """Of the line of JSON, which lines of the log may be around."""
    for line in text.splitlines():
        if line.startswith("{"):
            return json.loads(line)["positions"]
    return []


def compare(reference_text: str, other_text: str) -> tuple[bool, str]:
    """Whether the two outputs of `quern-eval logits --json` are of the same model up to 16-bit activations, and in words."""
    reference, other = _positions(reference_text), _positions(other_text)
    if not reference or not other:
        return False, "quern-eval printed no logits"
    if [p["token"] for p in reference] != [p["token"] for p in other]:
        return False, "the two ran other tokens"
    kl = [_divergence(a, b) for a, b in zip(reference, other)]
    mean = sum(kl) / len(kl)
    decided = [(a, b) for a, b in zip(reference, other) if a["top"][0][1] - a["top"][1][1] >= DECIDED]
    wrong = [a["position"] for a, b in decided if a["top"][0][0] != b["top"][0][0]]
    note = f"{len(kl)} tokens: KL from float32 {mean:.4f} in the mean, {max(kl):.4f} at most; {len(decided)} clear next tokens"
    if wrong:
        return False, f"{note}, another one at position {wrong[0]}"
    return mean <= MOST_MEAN_KL, note + (", all the same" if mean <= MOST_MEAN_KL else f"; {MOST_MEAN_KL} is the most")
