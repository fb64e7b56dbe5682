"""Forward passes of the llama and gemma3 architectures in plain numpy, on dequantised weights: what the logits would be if
nothing were rounded on the way. Slow, short, and written from the papers' formulas; nothing here is shared with the C++."""

import gguf
import numpy as np


class Weights:
    """A GGUF file's metadata, and its tensors as `dtype`."""

    def __init__(self, path, dtype=np.float32, kv_dtype=None):
        self.reader = gguf.GGUFReader(path)
        self.tensors = {t.name: t for t in self.reader.tensors}
        self.dtype = dtype
        self.kv_dtype = kv_dtype  # K and V are rounded to it, as a cache of that type does
        self.architecture = self.reader.fields["general.architecture"].contents()
        self.cache = {}

    def meta(self, name, default=None):
        field = self.reader.fields.get(f"{self.architecture}.{name}")
        return default if field is None else field.contents()

    def __getitem__(self, name):
        if name not in self.cache:
            tensor = self.tensors[name]
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            shape = tuple(int(n) for n in reversed(tensor.shape))
            self.cache[name] = np.ascontiguousarray(values.reshape(shape), dtype=self.dtype)
        return self.cache[name]


def stored(w, kv):
    return kv if w.kv_dtype is None else kv.astype(w.kv_dtype).astype(kv.dtype)


def rms_norm(x, weight, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight


def rotate(x, base, adjacent):
    """x [tokens, heads, dim]; pairs (2i, 2i+1) where `adjacent`, else (i, i + dim/2)."""
    tokens, _, dim = x.shape
    frequencies = float(base) ** (-2.0 * np.arange(dim // 2) / dim)
    angles = np.arange(tokens)[:, None] * frequencies[None, :]
    cos = np.cos(angles).astype(x.dtype)[:, None, :]
    sin = np.sin(angles).astype(x.dtype)[:, None, :]
    a, b = (x[..., 0::2], x[..., 1::2]) if adjacent else (x[..., : dim // 2], x[..., dim // 2 :])
    out = np.empty_like(x)
    first, second = a * cos - b * sin, a * sin + b * cos
    if adjacent:
        out[..., 0::2], out[..., 1::2] = first, second
    else:
        out[..., : dim // 2], out[..., dim // 2 :] = first, second
    return out


def attend(q, k, v, scale, window):
    """q [tokens, heads, dim], k and v [tokens, kv_heads, dim]; causal, a token sees the last `window` (0: all)."""
    tokens, heads, dim = q.shape
    group = heads // k.shape[1]
    later = np.arange(tokens)[None, :] > np.arange(tokens)[:, None]
    if window:
        later |= np.arange(tokens)[:, None] - np.arange(tokens)[None, :] >= window
    out = np.empty_like(q)
    for head in range(heads):
        scores = (q[:, head] @ k[:, head // group].T) * q.dtype.type(scale)
        scores[later] = -np.inf
        scores -= scores.max(axis=-1, keepdims=True)
        weights = np.exp(scores)
        weights /= weights.sum(axis=-1, keepdims=True)
        out[:, head] = weights @ v[:, head // group]
    return out.reshape(tokens, heads * dim)


def silu(x):
    return x / (1 + np.exp(-x))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi).astype(x.dtype) * (x + x.dtype.type(0.044715) * x**3)))


def llama(w, tokens, positions):
    heads, kv_heads = w.meta("attention.head_count"), w.meta("attention.head_count_kv")
    epsilon, base = w.meta("attention.layer_norm_rms_epsilon"), w.meta("rope.freq_base", 10000.0)
    x = w["token_embd.weight"][tokens]
    n, dim = len(tokens), x.shape[1] // heads
    for i in range(w.meta("block_count")):
        p = f"blk.{i}."
        h = rms_norm(x, w[p + "attn_norm.weight"], epsilon)
        q = rotate((h @ w[p + "attn_q.weight"].T).reshape(n, heads, dim), base, adjacent=True)
        k = rotate((h @ w[p + "attn_k.weight"].T).reshape(n, kv_heads, dim), base, adjacent=True)
        v = (h @ w[p + "attn_v.weight"].T).reshape(n, kv_heads, dim)
        x = x + attend(q, stored(w, k), stored(w, v), dim**-0.5, 0) @ w[p + "attn_output.weight"].T
        h = rms_norm(x, w[p + "ffn_norm.weight"], epsilon)
        gated = silu(h @ w[p + "ffn_gate.weight"].T) * (h @ w[p + "ffn_up.weight"].T)
        x = x + gated @ w[p + "ffn_down.weight"].T
    return rms_norm(x[positions], w["output_norm.weight"], epsilon)


def gemma3(w, tokens, positions):
    heads, kv_heads = w.meta("attention.head_count"), w.meta("attention.head_count_kv")
    epsilon, dim = w.meta("attention.layer_norm_rms_epsilon"), w.meta("attention.key_length")
    x = w["token_embd.weight"][tokens]
    n = len(tokens)
    x = x * x.dtype.type(np.sqrt(np.float32(x.shape[1])))
    for i in range(w.meta("block_count")):
        p = f"blk.{i}."
        is_global = i % 6 == 5
        base = w.meta("rope.freq_base") if is_global else 10000.0
        window = 0 if is_global else w.meta("attention.sliding_window")
        h = rms_norm(x, w[p + "attn_norm.weight"], epsilon)
        q = rms_norm((h @ w[p + "attn_q.weight"].T).reshape(n, heads, dim), w[p + "attn_q_norm.weight"], epsilon)
        k = rms_norm((h @ w[p + "attn_k.weight"].T).reshape(n, kv_heads, dim), w[p + "attn_k_norm.weight"], epsilon)
        v = (h @ w[p + "attn_v.weight"].T).reshape(n, kv_heads, dim)
        q, k = rotate(q, base, adjacent=False), rotate(k, base, adjacent=False)
        h = attend(q, stored(w, k), stored(w, v), dim**-0.5, window) @ w[p + "attn_output.weight"].T
        x = x + rms_norm(h, w[p + "post_attention_norm.weight"], epsilon)
        h = rms_norm(x, w[p + "ffn_norm.weight"], epsilon)
        gated = gelu_tanh(h @ w[p + "ffn_gate.weight"].T) * (h @ w[p + "ffn_up.weight"].T)
        x = x + rms_norm(gated @ w[p + "ffn_down.weight"].T, w[p + "post_ffw_norm.weight"], epsilon)
    return rms_norm(x[positions], w["output_norm.weight"], epsilon)


def hidden_states(weights, tokens, positions):
    """The last layer's output, normalised, at each of `positions`: [positions, width]."""
    return {"llama": llama, "gemma3": gemma3}[weights.architecture](weights, tokens, positions)


def forward(weights, tokens, positions):
    """Logits [positions, vocabulary] that follow each of `positions`."""
    return hidden_states(weights, tokens, positions) @ weights["token_embd.weight"].T
