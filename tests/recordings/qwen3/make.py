#!/usr/bin/env python3
"""Makes two tiny models, Qwen 3 dense and with experts, and what Hugging Face's transformers computes with them.

    python3 -m venv VENV && VENV/bin/pip install -r requirements.txt && VENV/bin/python make.py

For each: NAME.gguf, random weights under the names that llama.cpp's converter gives them (gguf's own table), most of
them stored as Q8_0, one as F16; and in recordings.json some tokens and the logits at every third of them. transformers
gets the stored weights, dequantised, and computes in float64, but for the norms, RoPE's angles and the router's softmax,
which it takes in float32 whatever it is asked for. `float32_error` is the most that a logit changes when it computes all
in float32. Experts must be chosen with room for such differences: `router_gap` is the least distance of the last logit
chosen from the next, over all tokens and layers."""

import json
import pathlib

import gguf
import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).parent
TOKENS = 40
EVERY = 3
LEAST_GAP = 0.01
SHAPE = {"vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 32, "intermediate_size": 96, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 128}
MODELS = {
    "qwen3": (transformers.Qwen3Config(**SHAPE, tie_word_embeddings=True), transformers.Qwen3ForCausalLM, 11),
    "qwen3moe": (transformers.Qwen3MoeConfig(**SHAPE, tie_word_embeddings=False, num_experts=8, num_experts_per_tok=3,
                                             moe_intermediate_size=32, norm_topk_prob=True),
                 transformers.Qwen3MoeForCausalLM, 13),
}


def random_weight(random, name, shape):
    if len(shape) == 1:
        return random.normal(1, 0.3, shape).astype(np.float32)
    spread = 2 if name.endswith("mlp.gate.weight") else 1  # the router's: choices further apart
    return random.normal(0, spread / np.sqrt(shape[1]), shape).astype(np.float32)


def storage(name, shape):
    if len(shape) == 1 or "ffn_gate_inp" in name:
        return gguf.GGMLQuantizationType.F32
    return gguf.GGMLQuantizationType.F16 if "attn_v" in name else gguf.GGMLQuantizationType.Q8_0


def stacked(tensors):
    """Experts' weights as one tensor each, [experts, rows, cols], as GGUF files have them."""
    experts = {}
    for name, value in tensors.items():
        if ".mlp.experts." not in name:
            yield name, value
            continue
        before, after = name.split(".mlp.experts.")
        number, rest = after.split(".", 1)
        experts.setdefault(f"{before}.mlp.experts.{rest}", {})[int(number)] = value
    for name, values in experts.items():
        yield name, np.stack([values[i] for i in range(len(values))])


def write_metadata(writer, config):
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    if hasattr(config, "num_experts"):
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)


def write_model(path, architecture, config, tensors):
    """Writes the file; returns the tensors as they are stored in it."""
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, architecture)
    write_metadata(writer, config)
    stored = {}
    for name, value in stacked(tensors):
        target = names.get_name(name, try_suffixes=(".weight",))
        kind = storage(target, value.shape)
        data = gguf.quants.quantize(value, kind)
        writer.add_tensor(target, data, raw_dtype=kind)
        stored[name] = gguf.quants.dequantize(data, kind).reshape(value.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored


def unstacked(tensors):
    for name, value in tensors.items():
        if ".mlp.experts." not in name:
            yield name, value
            continue
        before, rest = name.split(".mlp.experts.")
        for i, one in enumerate(value):
            yield f"{before}.mlp.experts.{i}.{rest}", one


def router_gaps(model, config, gaps):
    def hook(_, __, logits):
        order = torch.sort(logits, dim=-1, descending=True).values
        gaps.append(float((order[:, config.num_experts_per_tok - 1] - order[:, config.num_experts_per_tok]).min()))

    for layer in model.model.layers:
        if hasattr(layer.mlp, "experts"):
            layer.mlp.gate.register_forward_hook(hook)


def logits_of(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].double().numpy()


def record(architecture):
    config, family, seed = MODELS[architecture]
    random = np.random.default_rng(seed)
    config._attn_implementation = "eager"
    model = family(config).eval()
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    tensors = {name: random_weight(random, name, tuple(value.shape))
               for name, value in model.state_dict().items() if name not in tied}
    stored = write_model(HERE / f"{architecture}.gguf", architecture, config, tensors)
    state = {name: torch.from_numpy(value.copy()) for name, value in unstacked(stored)}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) <= tied and not unexpected, (missing, unexpected)
    model.tie_weights()
    gaps = []
    router_gaps(model, config, gaps)
    tokens = [int(t) for t in random.integers(0, config.vocab_size, TOKENS)]
    single = logits_of(model.float(), tokens)
    double = logits_of(model.double(), tokens)
    assert all(gap > LEAST_GAP for gap in gaps), f"another seed: {min(gaps)}"
    positions = list(range(0, TOKENS, EVERY))
    return {"model": f"{architecture}.gguf", "tokens": tokens, "positions": positions,
            "float32_error": float(f"{np.abs(single - double).max():.3g}"),
            "router_gap": float(f"{min(gaps, default=0):.3g}"),
            "logits": [[float(f"{v:.9g}") for v in double[p]] for p in positions]}


def main():
    made = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__, "gguf": "0.19.0",
            "models": [record(architecture) for architecture in MODELS]}
    (HERE / "recordings.json").write_text(json.dumps(made, separators=(",", ":")) + "\n")
    for model in made["models"]:
        logits = np.array(model["logits"])
        print(model["model"], (HERE / model["model"]).stat().st_size, "bytes; float32_error", model["float32_error"],
              "router_gap", model["router_gap"], "logits of", float(logits.std()))


if __name__ == "__main__":
    main()
