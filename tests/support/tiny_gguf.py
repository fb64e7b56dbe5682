"""A GGUF file of a transformer that the SIMT emulator runs in a second: random weights, one token for each byte."""

import random
import struct
from pathlib import Path

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_DIM, FFN = 2, 64, 2, 2, 64, 128
_F32, _F16, _ALIGNMENT = 0, 1, 32


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value) -> bytes:
    """With its type before it."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if not value or isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_string, value))
    return struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(f"<{len(value)}i", *value)


def _byte_names() -> list[str]:
    """GPT-2's printable character for each byte: itself, or one from 256 on where it is none."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _metadata(vocabulary: list[str]) -> dict:
    return {"general.architecture": "llama", "general.name": "tiny", "llama.block_count": LAYERS, "llama.context_length": 256,
            "llama.embedding_length": WIDTH, "llama.feed_forward_length": FFN, "llama.attention.head_count": HEADS,
            "llama.attention.head_count_kv": KV_HEADS, "llama.attention.key_length": HEAD_DIM,
            "llama.attention.value_length": HEAD_DIM, "llama.attention.layer_norm_rms_epsilon": 1e-5,
            "llama.rope.freq_base": 10000.0, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm",
            "tokenizer.ggml.tokens": vocabulary, "tokenizer.ggml.token_type": [1] * 256 + [3], "tokenizer.ggml.merges": [],
            "tokenizer.ggml.eos_token_id": 256, "tokenizer.ggml.bos_token_id": 256}


def _shapes(vocabulary: list[str]) -> dict[str, tuple]:
    shapes = {"token_embd.weight": (WIDTH, len(vocabulary)), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.{name}.weight": dims for name, dims in {
            "attn_norm": (WIDTH,), "attn_q": (WIDTH, HEADS * HEAD_DIM), "attn_k": (WIDTH, KV_HEADS * HEAD_DIM),
            "attn_v": (WIDTH, KV_HEADS * HEAD_DIM), "attn_output": (HEADS * HEAD_DIM, WIDTH), "ffn_norm": (WIDTH,),
            "ffn_gate": (WIDTH, FFN), "ffn_up": (WIDTH, FFN), "ffn_down": (FFN, WIDTH)}.items()}
    return shapes


def write(path: Path, seed: int) -> Path:
    chance = random.Random(seed)
    vocabulary = [*_byte_names(), "<|end|>"]
    infos, data = b"", b""
    shapes = _shapes(vocabulary)
    for name, dims in shapes.items():
        data += bytes(-len(data) % _ALIGNMENT)
        infos += _string(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        infos += struct.pack("<IQ", _F32 if len(dims) == 1 else _F16, len(data))
        if len(dims) == 1:
            data += struct.pack(f"<{dims[0]}f", *(chance.gauss(1, 0.1) for _ in range(dims[0])))
        else:
            data += struct.pack(f"<{dims[0] * dims[1]}e", *(chance.gauss(0, 0.15) for _ in range(dims[0] * dims[1])))
    pairs = _metadata(vocabulary)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(pairs))
    head += b"".join(_string(key) + _value(value) for key, value in pairs.items()) + infos
    path.write_bytes(head + bytes(-len(head) % _ALIGNMENT) + data)
    return path
