"""What is measured, and what is aimed at."""

from dataclasses import dataclass, replace

GEMMA = "gemma-3-270m.Q4_K_M.gguf"
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAMES = {GEMMA: "Gemma 3 270M Q4_K_M", SMOLLM2: "SmolLM2-135M Q4_1"}


@dataclass(frozen=True)
class Workload:
    """One figure: tokens a second of a model in a phase. A target is what is wanted, as a ratio to the peer and as a share of the limit."""

    model: str  # file in the models' folder
    phase: str  # decode, prefill
    batch: int
    prompt: int
    generate: int
    at_least: float | None  # times the peer; None: for the plots alone
    limit: str | None = None  # the machine's that it is set beside: read, int8
    of_limit: float | None = None
    top_k: int = 0  # what is drawn from; 1: greedy; 0: nothing is drawn, all logits are computed

    def key(self) -> str:
        stem = "gemma" if self.model == GEMMA else "smollm2"
        return f"{stem}-{self.phase}-{self.batch if self.phase == 'decode' else self.prompt}" + (f"-top{self.top_k}" if self.top_k else "")

    def describe(self) -> str:
        if self.phase == "prefill":
            return f"prefill {self.prompt:,}"
        drawn = {0: "", 1: ", greedy"}.get(self.top_k, f", top-k {self.top_k}")
        return f"decode, batch {self.batch}{drawn}"

    def small(self) -> "Workload":
        """The same in seconds: figures that mean nothing."""
        return replace(self, prompt=min(self.prompt, 64), generate=min(self.generate, 8))


def all_workloads() -> list[Workload]:
    """In the order of docs/performance.md's table."""
    def decode(model, batch, at_least=None, limit=None, of_limit=None, top_k=0):
        return Workload(model, "decode", batch, 128, 64 if batch < 32 else 32, at_least, limit, of_limit, top_k)

    def prefill(model, prompt, at_least, of_limit=None):
        return Workload(model, "prefill", 1, prompt, 1, at_least, "int8", of_limit)

    return [decode(GEMMA, 1, 1.8, top_k=1), decode(GEMMA, 1, 1.8, top_k=40), decode(GEMMA, 1, 1.5, "read", 0.85), decode(GEMMA, 2),
            decode(GEMMA, 4), decode(GEMMA, 8, 3.0), decode(GEMMA, 16), decode(GEMMA, 32, 4.0, "int8", 0.45),
            prefill(GEMMA, 512, 4.0, 0.45), prefill(GEMMA, 8192, 2.5),
            decode(SMOLLM2, 1, 2.0, top_k=1), decode(SMOLLM2, 1, 2.0, "read", 0.7), decode(SMOLLM2, 2), decode(SMOLLM2, 4),
            decode(SMOLLM2, 8, 3.0), decode(SMOLLM2, 16), decode(SMOLLM2, 32, 4.0, "int8"), prefill(SMOLLM2, 512, 5.0)]
