"""The model's answers as Markdown tables; docs/kernel-model.md has them."""

from .roofline import GPUS, MODELS, Gpu, Model, accepted, decode, product

BATCHES = (1, 8, 32, 128)
CONTEXT = 2048
_LLAMA_70B = MODELS[1]
_H200 = next(gpu for gpu in GPUS if gpu.name == "H200")
_NODE = 8
_DRAFT, _ACCEPTANCE = 4, 0.75  # of speculation: proposed tokens, and how likely each is accepted
# What docs/cuda.md has of an H100: share of 2.85 TB/s, a copy's, at batch 1.
# Marlin's own benchmark: an A10 (its datasheet's figures), 18,432 columns and four times as many rows, FP16, groups of 128.
_A10 = Gpu("A10", 0.6e12, 125e12, 0, 24e9)
_MARLIN_SHAPE, _MARLIN_BATCHES, _MARLIN_PUBLISHED = (73728, 18432), (1, 16, 32), 3.87
_MEASURED = ((8192, 28672, 0.90), (14336, 4096, 0.69), (4096, 4096, 0.55))


def _markdown(head, rows) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def _rate(tokens_per_second: float) -> str:
    return f"{tokens_per_second:,.0f}"


def _grouped(gpu: Gpu, weights: str, model: Model, height: int, width: int, batch: int):
    """One product of all experts that `batch` tokens touch."""
    touched = model.touched_experts(batch)
    return product(gpu, weights, height * touched, width, batch * model.active / touched)


def products(weights: str = "w4") -> str:
    """Of each model's products: the part of the limit that is modelled to be reached, by GPU, at each batch size."""
    rows = []
    for model in MODELS:
        feed_forward = [("gate and up", 2 * model.inner, model.hidden), ("down", model.hidden, model.inner)]
        for name, height, width in model.attention_shapes() + feed_forward:
            grouped = model.experts and (name, height, width) in feed_forward
            cells = []
            for gpu in GPUS:
                both = [_grouped(gpu, weights, model, height, width, batch) if grouped else product(gpu, weights, height, width, batch)
                        for batch in BATCHES]
                cells.append(" / ".join(f"{limit / modelled:.0%}" for limit, modelled in both))
            rows.append([model.name, name, f"{height} x {width}" + (f", {model.active} of {model.experts}" if grouped else ""), *cells])
    return _markdown(["model", "product", "rows x columns", *(gpu.name for gpu in GPUS)], rows)


def decodes(weights: str = "w4") -> str:
    """Tokens a second of one GPU: limit and modelled, at each batch size."""
    rows = []
    for model in MODELS:
        row = [model.name]
        for gpu in GPUS:
            cells = []
            for batch in BATCHES:
                step = decode(model, gpu, weights, batch, CONTEXT)
                cells.append(f"{_rate(batch / step.limit)} ({_rate(batch / step.modelled)})" if step.fits else "–")
            row.append("does not fit" if set(cells) == {"–"} else "; ".join(cells))
        rows.append(row)
    return _markdown(["model", *(gpu.name for gpu in GPUS)], rows)


def _node_row(gpu: Gpu, weights: str, batch: int, parallel: int, speculate: bool):
    """`batch` sequences on each group of GPUs: the whole node's, and each sequence's, tokens a second."""
    tokens = _DRAFT + 1 if speculate else 1
    step = decode(_LLAMA_70B, gpu, weights, batch, CONTEXT, parallel, tokens)
    gain = accepted(_DRAFT, _ACCEPTANCE) if speculate else 1.0
    groups = _NODE // parallel
    if not step.fits:
        return None
    return groups * batch * gain / step.limit, groups * batch * gain / step.modelled, gain / step.modelled


def node() -> str:
    """Llama-3-70B on 8 H200: what a node makes at batch 1 and 32."""
    rows = []
    for weights in ("bf16", "fp8", "w4"):
        for parallel, how in ((_NODE, "tensor parallel"), (1, "replicated")):
            for speculate in (False, True):
                cells = []
                for batch in (1, 32):
                    found = _node_row(_H200, weights, batch, parallel, speculate)
                    cells += [_rate(found[0]), _rate(found[1]), _rate(found[2])] if found else ["does not fit", "–", "–"]
                rows.append([weights, how, "yes" if speculate else "no", *cells])
    return _markdown(["weights", "GPUs", "speculation", "batch 1: limit", "modelled", "of one sequence", "batch 32: limit", "modelled",
                      "of one sequence"], rows)


def against_measured() -> str:
    """The model beside what an H100 was measured at (docs/cuda.md); none of it was used to set a constant."""
    gpu = next(one for one in GPUS if one.name == "H100")
    rows = []
    for height, width, share in _MEASURED:
        moved = height * width * 4.25 / 8 + 2 * (height + width)
        measured = moved / (share * 2.85e12)
        limit, modelled = product(gpu, "w4", height, width, 1)
        rows.append([f"{height} x {width}", f"{measured * 1e6:.1f} µs", f"{modelled * 1e6:.1f} µs", f"{modelled / measured - 1:+.0%}",
                     f"{limit / measured:.0%}"])
    return _markdown(["W4A16, batch 1", "measured", "modelled", "difference", "limit / measured"], rows)


def against_marlin() -> str:
    """The time of a 16-bit product over that of a 4-bit one, as modelled, beside what Marlin's authors published of an A10."""
    rows = []
    for gpu in (_A10, *GPUS):
        shapes = [_MARLIN_SHAPE, (8192, 28672)] if gpu is _A10 else [(8192, 28672)]
        for height, width in shapes:
            ratios = []
            for batch in _MARLIN_BATCHES:
                dense, w4 = (product(gpu, weights, height, width, batch) for weights in ("bf16", "w4"))
                ratios.append(f"{dense[1] / w4[1]:.2f} ({dense[0] / w4[0]:.2f})")
            published = f"{_MARLIN_PUBLISHED} to 16 to 32" if (height, width) == _MARLIN_SHAPE else "–"
            rows.append([gpu.name, f"{height} x {width}", *ratios, published])
    return _markdown(["16 bits over 4", "rows x columns", *(f"batch {batch}: modelled (limit)" for batch in _MARLIN_BATCHES),
                      "Marlin, published"], rows)


TABLES = {"node": node, "decodes": decodes, "products": products, "against-measured": against_measured,
          "against-marlin": against_marlin}
