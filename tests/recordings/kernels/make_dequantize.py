#!/usr/bin/env python3
"""Makes dequantize.bin: random blocks of every quantised type and what PyPI's `gguf` (0.19.0, with numpy) makes of them.

For each type, little-endian: uint32 type, uint32 bytes, the bytes of 256 weights, float32[256]."""

import pathlib
import struct

import gguf
import numpy as np

HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}

rng = np.random.default_rng(7)
out = b""
for name, halves in HALVES.items():
    kind = gguf.GGMLQuantizationType[name]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (256 // elements, size), dtype=np.uint8)
    for at in halves:
        scales = rng.uniform(-2, 2, len(blocks)).astype("<f2")
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    values = gguf.quants.dequantize(blocks, kind).astype("<f4").reshape(-1)
    assert values.size == 256
    out += struct.pack("<II", kind, blocks.size) + blocks.tobytes() + values.tobytes()
pathlib.Path(__file__).with_name("dequantize.bin").write_bytes(out)
