#!/usr/bin/env python3
"""Makes recordings.json, which tests/unit/runtime/sampling compares penalties, typical_p and log-probabilities with.

    tests/recordings/sampling/make.py    (Python's standard library is enough)

The formulae are written down from other implementations, in double precision and with a full sort:
- logit_bias, then repetition, frequency and presence penalty: vLLM 0.11, vllm/v1/sample/sampler.py and
  vllm/model_executor/layers/utils.py (apply_penalties); the repetition penalty is Hugging Face's
  RepetitionPenaltyLogitsProcessor.
- typical_p: Hugging Face transformers 4.57, TypicalLogitsWarper, after division by the temperature; the tokens that stay.
- logprobs: log_softmax of the logits as the model gave them."""

import json
import math
import pathlib
import random

HERE = pathlib.Path(__file__).parent


def log_softmax(logits):
    top = max(logits)
    total = math.log(sum(math.exp(x - top) for x in logits)) + top
    return [x - total for x in logits]


def penalised(logits, prompt, output, bias, repetition, frequency, presence):
    out = []
    for token, logit in enumerate(logits):
        logit += bias.get(token, 0.0)
        if token in prompt or token in output:
            logit = logit / repetition if logit > 0 else logit * repetition
        count = output.count(token)
        out.append(logit - frequency * count - presence * (count > 0))
    return out


def typical(logits, mass, temperature):
    normalised = log_softmax([x / temperature for x in logits])
    entropy = -sum(math.exp(x) * x for x in normalised)
    order = sorted(range(len(logits)), key=lambda i: abs(-normalised[i] - entropy))
    kept, total = [], 0.0
    for token in order:
        kept.append(token)
        total += math.exp(normalised[token])
        if total >= mass:
            break
    return sorted(kept)


def main():
    draw = random.Random(2026)
    cases = []
    for size in [8, 40, 200]:
        for spread in [0.5, 3.0]:
            logits = [round(draw.gauss(0, spread), 4) for _ in range(size)]
            prompt = [draw.randrange(size) for _ in range(size // 4)]
            output = [draw.randrange(size) for _ in range(size // 2)]
            bias = {draw.randrange(size): round(draw.uniform(-100, 100), 2) for _ in range(3)}
            penalties = dict(repetition=draw.choice([0.7, 1.0, 1.3, 4.0]), frequency=draw.choice([-1.5, 0.0, 0.6, 2.0]),
                             presence=draw.choice([-2.0, 0.0, 0.9]))
            mass, temperature = draw.choice([0.2, 0.5, 0.9]), draw.choice([0.7, 1.0, 1.5])
            cases.append(dict(logits=logits, prompt=prompt, output=output, bias=sorted(bias.items()), **penalties,
                              penalised=[round(x, 6) for x in penalised(logits, prompt, output, bias, **penalties)],
                              typical_p=mass, temperature=temperature, typical=typical(logits, mass, temperature),
                              logprobs=[round(x, 6) for x in log_softmax(logits)]))
    text = "[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n"
    (HERE / "recordings.json").write_text(text)


if __name__ == "__main__":
    main()
