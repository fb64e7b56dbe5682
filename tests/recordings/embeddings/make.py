#!/usr/bin/env python3
"""Makes the recordings that tests/integration/server/test_embeddings.py compares /v1/embeddings with.

    $(hack/setup --print recordings) make.py MODEL.gguf:SERVER ...       (a minute)

SERVER is the URL of a quern-serve with that model, which only splits the texts into tokens. For each text the hidden state of the
float32 reference (../logits/reference.py) at the last token, scaled to length 1, as base64 of little-endian float32."""

import base64
import json
import pathlib
import sys
import urllib.request

import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "logits"))
import reference  # noqa: E402

TEXTS = ["A cat sleeps on the sofa.", "The kitten naps on the couch.", "Interest rates rose by half a point.",
         "Les taux d'intérêt ont augmenté.", "def add(a, b): return a + b",
         (HERE.parent / "perplexity" / "text.txt").read_text()[:4000]]


def tokenize(server, text):
    request = urllib.request.Request(server + "/tokenize", json.dumps({"prompt": text}).encode(),
                                     {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))["tokens"]


def main():
    recordings = {}
    for argument in sys.argv[1:]:
        path, server = argument.split(":", 1)
        weights = reference.Weights(path)
        recordings[pathlib.Path(path).name] = entries = []
        for text in TEXTS:
            tokens = tokenize(server, text)
            vector = reference.hidden_states(weights, np.array(tokens), [len(tokens) - 1])[0].astype(np.float64)
            vector = (vector / np.linalg.norm(vector)).astype("<f4")
            entries.append({"text": text, "tokens": len(tokens), "embedding": base64.b64encode(vector.tobytes()).decode()})
    (HERE / "recordings.json").write_text(json.dumps(recordings, indent=1) + "\n")


if __name__ == "__main__":
    main()
