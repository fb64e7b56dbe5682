#!/usr/bin/env python3
"""Records what llama.cpp's tokenizer makes of the corpus, for tests/unit/runtime/tokenizer.

    hack/setup --recordings
    $(hack/setup --print recordings) tests/recordings/tokenizer/make.py ~/.cache/quern/models

Writes smollm2.json and gemma3.json here: {"texts": [[name, text, [ids], [ids with special text parsed]], ...], ...}.
With --compare (which needs tokenizers in that environment, too) it also rebuilds Hugging Face tokenizers from the files' own vocabularies and says where they differ.
"""

import argparse
import ctypes
import hashlib
import json
import sys
from pathlib import Path

import corpus

HERE = Path(__file__).parent
MODELS = {"smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3": "gemma-3-270m.Q4_K_M.gguf"}


def digest(ids):
    return hashlib.sha256(b"".join(i.to_bytes(4, "little") for i in ids)).hexdigest()


def record(path):
    import llama_cpp

    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    vocab = model._model.vocab
    size = model.n_vocab()

    def encode(text, add_special=False, special=False):
        return model.tokenize(text.encode(), add_bos=add_special, special=special)

    pieces = hashlib.sha256()
    buffer = ctypes.create_string_buffer(1024)
    for token in range(size):
        length = llama_cpp.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, True)
        assert length >= 0, token
        piece = buffer.raw[:length]
        pieces.update(len(piece).to_bytes(4, "little") + piece)
    return {
        "source": f"llama-cpp-python {llama_cpp.__version__}",
        "vocab_size": size,
        "pieces_sha256": pieces.hexdigest(),
        "end_of_generation": [t for t in range(size) if llama_cpp.llama_vocab_is_eog(vocab, t)],
        "with_special": [[text, encode(text, add_special=True)] for text in ("", "Hello", " a b")],
        "texts": [[name, text, encode(text), encode(text, special=True)] for name, text in corpus.small()],
        "large": [[name, unit, repeats, len(ids), digest(ids)]
                  for name, unit, repeats in corpus.large() for ids in [encode(unit * repeats)]],
    }


def huggingface(path):
    """The same tokenizer in Hugging Face's library, from the vocabulary and merges in the file."""
    import gguf
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    fields = gguf.GGUFReader(path).fields

    def get(key):
        return fields["tokenizer.ggml." + key].contents()

    tokens, kinds = get("tokens"), get("token_type")
    vocab = {token: i for i, token in enumerate(tokens)}
    if get("model") == "gpt2":
        merges = [tuple(line.split(" ", 1)) for line in get("merges")]
        made = Tokenizer(models.BPE(vocab=vocab, merges=merges))
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
        made.decoder = decoders.ByteLevel()
    else:
        # As transformers converts SentencePiece BPE: a merge for each way to cut a token into two tokens, in the
        # order of the whole's score.
        scores = get("scores")
        cuts = []
        for token, i in vocab.items():
            if kinds[i] != 1 and kinds[i] != 4:
                continue
            for at in range(1, len(token)):
                if token[:at] in vocab and token[at:] in vocab:
                    cuts.append((-scores[i], vocab[token[:at]], vocab[token[at:]], token[:at], token[at:]))
        cuts.sort(key=lambda cut: cut[:3])
        made = Tokenizer(models.BPE(vocab=vocab, merges=[cut[3:] for cut in cuts], byte_fallback=True, unk_token="<unk>",
                                    fuse_unk=True))
        made.normalizer = normalizers.Replace(" ", "\u2581")
    made.add_special_tokens([AddedToken(tokens[i], special=True, normalized=False) for i, k in enumerate(kinds) if k == 3])
    made.add_tokens([AddedToken(tokens[i], normalized=False) for i, k in enumerate(kinds) if k == 4])
    return made


def compare(name, path, recorded):
    made = huggingface(path)
    texts = recorded["texts"]
    differing = [(t[0], t[1], t[3], made.encode(t[1], add_special_tokens=False).ids) for t in texts]
    differing = [d for d in differing if d[2] != d[3]]
    print(f"{name}: Hugging Face agrees on {len(texts) - len(differing)} of {len(texts)} texts (special text parsed)")
    for text_name, text, ours, theirs in differing:
        print(f"  {text_name}: {text[:60]!r}\n    llama.cpp    {ours[:40]}\n    Hugging Face {theirs[:40]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--only-compare", action="store_true", help="with the recordings that are here")
    args = parser.parse_args()
    for name, file in MODELS.items():
        out = HERE / f"{name}.json"
        if not args.only_compare:
            recorded = record(args.models / file)
            lines = json.dumps(recorded, ensure_ascii=True, separators=(",", ":")).replace("],[\"", "],\n[\"")
            out.write_text(lines + "\n")
            print(f"{out}: {len(recorded['texts'])} texts, {out.stat().st_size} bytes", file=sys.stderr)
        if args.compare or args.only_compare:
            compare(name, args.models / file, json.loads(out.read_text()))


if __name__ == "__main__":
    main()
