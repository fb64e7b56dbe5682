"""How long products and decode steps take on GPUs that are not here: *modelled*, never measured.

limit: the datasheet's own roofline, max(bytes / bandwidth, operations / rate); nothing can be faster.
modelled: max(bytes / (0.92 bandwidth), operations / (0.75 rate)) and 2.5 µs for each kernel to begin and end. The constants are of the
size that large copies, large products and the shortest kernels reach; they were set before anything was compared with them, and
nothing was fitted. What costs time and is left out: attention's own inefficiency, sampling, the scheduler, experts that are not
chosen evenly.
"""

from dataclasses import dataclass

BANDWIDTH_SHARE = 0.92
RATE_SHARE = 0.75
KERNEL_SECONDS = 2.5e-6
# A small all-reduce over NVLink, and the kernels around a layer's four or five products (norms, rotary embedding, attention).
ALL_REDUCE_SECONDS = 6e-6
KERNELS_PER_LAYER = 8

BYTES = {"bf16": 2.0, "fp8": 1.0, "w4": 4.25 / 8}  # of a weight; w4: 4 bits and a 32-bit scale and zero for 128


@dataclass(frozen=True)
class Gpu:
    name: str
    bandwidth: float  # bytes/s
    bf16: float  # operations/s, dense
    fp8: float  # 0: not there
    memory: float  # bytes


# NVIDIA's datasheets, the SXM forms, without sparsity.
GPUS = (
    Gpu("A100", 2.039e12, 312e12, 0, 80e9),
    Gpu("L40S", 0.864e12, 362e12, 733e12, 48e9),
    Gpu("H100", 3.35e12, 989e12, 1979e12, 80e9),
    Gpu("H200", 4.8e12, 989e12, 1979e12, 141e9),
    Gpu("B200", 8.0e12, 2250e12, 4500e12, 180e9),
)


def find_gpu(name: str) -> Gpu | None:
    """That of a name as nvidia-smi says it: "NVIDIA H100 80GB HBM3"."""
    words = name.replace("-", " ").split()
    return next((gpu for gpu in GPUS if gpu.name in words), None)


@dataclass(frozen=True)
class Model:
    """Of config.json on Hugging Face. Windows are left out: what they save at 2,048 tokens is little."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int  # of a dense layer's feed-forward, or of one expert's
    vocabulary: int
    experts: int = 0
    active: int = 0
    shared_inner: int = 0  # of experts that all tokens go through
    dense_layers: int = 0  # of a model with experts
    dense_inner: int = 0
    mla: tuple = ()  # DeepSeek's: ranks of q and kv, and the dimensions without and with rotary embedding, and of v

    def attention_shapes(self) -> list[tuple[str, int, int]]:
        """(name, rows, columns) of a layer's products around attention."""
        if not self.mla:
            return [("qkv", (self.heads + 2 * self.kv_heads) * self.head_dim, self.hidden), ("out", self.hidden, self.heads * self.head_dim)]
        q_rank, kv_rank, plain, rotary, value = self.mla
        return [("q and kv down", q_rank + kv_rank + rotary, self.hidden), ("q up", self.heads * (plain + rotary), q_rank),
                ("kv up", self.heads * (plain + value), kv_rank), ("out", self.hidden, self.heads * value)]

    def touched_experts(self, batch: int) -> float:
        """Of a layer, by `batch` tokens, on average, if every expert is as likely as any other."""
        return self.experts * (1 - (1 - self.active / self.experts) ** batch)

    def feed_forward_weights(self, batch: int) -> float:
        """Of all layers: those that a step of `batch` tokens reads."""
        if not self.experts:
            return self.layers * 3.0 * self.hidden * self.inner
        touched = self.touched_experts(batch)
        per_layer = 3.0 * self.hidden * (touched * self.inner + self.shared_inner)
        return (self.layers - self.dense_layers) * per_layer + self.dense_layers * 3.0 * self.hidden * self.dense_inner

    def attention_weights(self) -> float:
        return self.layers * float(sum(rows * cols for _, rows, cols in self.attention_shapes()))

    def head_weights(self) -> float:
        return float(self.vocabulary) * self.hidden

    def weights(self) -> float:
        """All that a GPU keeps, the embedding but once."""
        return self.attention_weights() + self.feed_forward_weights(10**9) + self.head_weights()

    def active_weights(self) -> float:
        return self.attention_weights() + self.feed_forward_weights(1) + self.head_weights()

    def kv_values(self) -> int:
        """Of one token, in all layers."""
        return self.layers * (self.mla[1] + self.mla[3] if self.mla else 2 * self.kv_heads * self.head_dim)


MODELS = (
    Model("Llama-3-8B", 32, 4096, 32, 8, 128, 14336, 128256),
    Model("Llama-3-70B", 80, 8192, 64, 8, 128, 28672, 128256),
    Model("Qwen3-30B-A3B", 48, 2048, 32, 4, 128, 768, 151936, experts=128, active=8),
    Model("GPT-OSS-20B", 24, 2880, 64, 8, 64, 2880, 201088, experts=32, active=4),
    Model("GPT-OSS-120B", 36, 2880, 64, 8, 64, 2880, 201088, experts=128, active=4),
    Model("DeepSeek-V3", 61, 7168, 128, 128, 128, 2048, 129280, experts=256, active=8, shared_inner=2048, dense_layers=3,
          dense_inner=18432, mla=(1536, 512, 128, 64, 128)),
)


def rate(gpu: Gpu, weights: str) -> float:
    """Operations/s of the tensor cores: w4 is widened to 16 bits."""
    return gpu.fp8 if weights == "fp8" else gpu.bf16


def product(gpu: Gpu, weights: str, rows: float, cols: float, batch: float) -> tuple[float, float]:
    """(limit, modelled) seconds of y = x w, 16-bit x and y."""
    moved = rows * cols * BYTES[weights] + 2.0 * batch * (rows + cols)
    operations = 2.0 * batch * rows * cols
    limit = max(moved / gpu.bandwidth, operations / rate(gpu, weights))
    modelled = max(moved / (BANDWIDTH_SHARE * gpu.bandwidth), operations / (RATE_SHARE * rate(gpu, weights))) + KERNEL_SECONDS
    return limit, modelled


@dataclass(frozen=True)
class Step:
    limit: float  # seconds
    modelled: float
    weight_bytes: float  # of one GPU
    fits: bool


def decode(model: Model, gpu: Gpu, weights: str, batch: int, context: int, gpus: int = 1, tokens: int = 1) -> Step:
    """One step of `batch` sequences over `gpus` GPUs by tensor parallelism, KV in 16 bits; `tokens` of each at once (speculation)."""
    rows = batch * tokens
    read = model.attention_weights() + model.feed_forward_weights(rows) + model.head_weights()
    kv = 2.0 * model.kv_values() * context * batch
    moved = (read * BYTES[weights] + kv) / gpus
    operations = 2.0 * rows * (model.active_weights() + 2.0 * model.heads * model.head_dim * context * model.layers) / gpus
    limit = max(moved / gpu.bandwidth, operations / rate(gpu, weights))
    modelled = max(moved / (BANDWIDTH_SHARE * gpu.bandwidth), operations / (RATE_SHARE * rate(gpu, weights)))
    modelled += model.layers * KERNELS_PER_LAYER * KERNEL_SECONDS
    if gpus > 1:
        modelled += 2 * model.layers * ALL_REDUCE_SECONDS
    held = model.weights() * BYTES[weights] / gpus
    return Step(limit, modelled, held, held + kv / gpus < 0.9 * gpu.memory)


def accepted(draft: int, acceptance: float) -> float:
    """Tokens that a step with `draft` proposed ones gives on average (Leviathan et al. 2023, equation 1)."""
    return (1 - acceptance ** (draft + 1)) / (1 - acceptance)
