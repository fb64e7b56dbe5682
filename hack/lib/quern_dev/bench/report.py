"""What was measured as Markdown tables, and its plots."""

import statistics
from pathlib import Path

from .workloads import NAMES, Workload


def spread(values: list[float]) -> float:
    """Half of what lies between the least and the most, as a share of the median."""
    return (max(values) - min(values)) / 2 / statistics.median(values)


def markdown(head, rows) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def cap(workload: Workload, facts: dict, limits: dict) -> float | None:
    """Tokens a second at the workload's limit: the memory's, if a step reads the weights once and nothing else; the 8-bit integer
    multiplications', if the matrix products were all (a prompt's need no output head, but for its last token)."""
    if workload.limit is None or workload.limit not in limits:
        return None
    if workload.limit == "read":
        return limits["read"] / facts["weight_bytes"]
    parameters = facts["parameters"] - (facts["head_parameters"] if workload.phase == "prefill" else 0)
    return limits["int8"] / (2 * parameters)


def roof(figure, limits: dict) -> float | None:
    """Tokens a second that no program of this machine can pass at this batch: the less of both limits."""
    if "int8" not in limits:
        return None
    memory = figure.workload.batch * limits["read"] / figure.facts["weight_bytes"]
    return min(memory, limits["int8"] / (2 * figure.facts["parameters"]))


def row_of(figure, limits: dict) -> dict:
    """A figure's numbers: medians, ratio, share of the limit, and whether the targets are met."""
    workload = figure.workload
    ours, theirs = statistics.median(figure.quern), statistics.median(figure.peer)
    ceiling = cap(workload, figure.facts, limits)
    row = {"key": workload.key(), "model": workload.model, "what": workload.describe(), "phase": workload.phase, "batch": workload.batch, "top_k": workload.top_k,
           "quern": ours, "peer": theirs, "ratio": ours / theirs, "target": workload.at_least, "limit": workload.limit,
           "cap": ceiling, "of_limit": ceiling and ours / ceiling, "target_of_limit": workload.of_limit,
           "runs": {"quern": figure.quern, "peer": figure.peer}, "spread": {"quern": spread(figure.quern), "peer": spread(figure.peer)},
           "setting": str(figure.setting), "sweep": figure.sweep}
    row["met"] = None if workload.at_least is None else row["ratio"] >= workload.at_least and (
        workload.of_limit is None or ceiling is None or row["of_limit"] >= workload.of_limit)
    return row


def _target(row: dict) -> str:
    if row["target"] is None:
        return "–"
    text = f"≥ {row['target']:g}"
    return text + (f", {row['target_of_limit']:.0%}" if row["target_of_limit"] else "")


def comparison(rows: list[dict]) -> str:
    """The table of tokens a second."""
    lines = []
    for row in rows:
        share = f"{row['of_limit']:.0%} of {row['limit']} ({row['cap']:,.0f})" if row["of_limit"] else "–"
        lines.append([NAMES[row["model"]], row["what"], f"{row['quern']:,.1f} ± {row['spread']['quern']:.0%}",
                      f"{row['peer']:,.1f} ± {row['spread']['peer']:.0%}", f"{row['ratio']:.2f}", share, _target(row),
                      {True: "yes", False: "no", None: "–"}[row["met"]], f"`{row['setting']}`"])
    return markdown(["model", "work", "quern, tokens/s", "llama.cpp, tokens/s", "ratio", "of the limit (tokens/s there)", "target", "met",
                     "llama.cpp's best setting"], lines)


def _median(rounds: list[dict], name: str, *path):
    values = []
    for one in rounds:
        value = one[name]
        for key in path:
            value = value[key]
        values.append(value)
    return statistics.median(values)


def served(points: list[dict]) -> str:
    """The table of clients over HTTP; each cell the median of the rounds."""
    lines = []
    for point in points:
        rates = {}
        for name, label in (("quern", "quern-serve"), ("peer", "llama-server")):
            rates[name] = _median(point["rounds"], name, "output_tokens_per_second")
            times = [f"{1000 * _median(point['rounds'], name, what, 'p50'):,.0f} ms" for what in ("ttft_seconds", "itl_seconds")]
            ratio = f"{rates['quern'] / rates['peer']:.2f}" if name == "peer" else ""
            lines.append([point["clients"], label, f"{rates[name]:,.1f}", *times, ratio])
    return markdown(["clients", "server", "generated tokens/s", "TTFT p50", "ITL p50", "ratio of tokens/s"], lines)


def shared_row(quiet, busy) -> dict:
    """What is left of the quiet rate beside other processes."""
    row = {"model": quiet.workload.model, "what": quiet.workload.describe()}
    for name in ("quern", "peer"):
        alone, beside = (statistics.median(getattr(figure, name)) for figure in (quiet, busy))
        row[name] = {"quiet": alone, "busy": beside, "share": beside / alone}
    return row


def shared(rows: list[dict]) -> str:
    lines = [[NAMES[row["model"]], row["what"],
              *(f"{row[name]['busy']:,.1f} of {row[name]['quiet']:,.1f} ({row[name]['share']:.0%})" for name in ("quern", "peer"))]
             for row in rows]
    return markdown(["model", "work", "quern, tokens/s beside busy processes, of quiet", "llama.cpp"], lines)


def start(found: dict) -> str:
    return markdown(["model", "seconds until ready, median", "longest"],
                    [[NAMES[name], f"{statistics.median(values):.2f}", f"{max(values):.2f}"] for name, values in found.items()])


def memory(found: dict) -> str:
    def mib(count):
        return f"{count / 2**20:,.0f} MiB"

    return markdown(["model", "peak resident", "file", "KV cache", "of file and KV cache"],
                    [[NAMES[name], mib(one["peak_bytes"]), mib(one["file_bytes"]), mib(one["kv_bytes"]),
                      f"{one['peak_bytes'] / (one['file_bytes'] + one['kv_bytes']):.2f}"] for name, one in found.items()])


def machine(found: dict) -> str:
    rows = [["processor", f"{found['cpu']}, {found['processors']} processors, {found['threads']} threads"],
            ["extensions", ", ".join(found["extensions"])], ["kernel", found["kernel"]], ["llama.cpp", found["llama.cpp"]],
            ["date", found["date"]]]
    units = {"read": (1e9, "GB/s"), "read_huge": (1e9, "GB/s")}
    for name, value in found.get("limits", {}).items():
        scale, unit = units.get(name, (1e9, "Gop/s"))
        rows.append([f"limit: {name}", f"{value / scale:,.1f} {unit}"])
    return markdown(["", ""], rows)


def tables(found: dict) -> dict[str, str]:
    """By their names in docs/performance.md."""
    makers = {"forward": comparison, "clients": served, "shared": shared, "start": start, "memory": memory, "machine": machine}
    return {name: make(found[name]) for name, make in makers.items() if name in found}


def _pyplot():
    from matplotlib import pyplot  # of requirements-plots.txt

    pyplot.rcParams["svg.hashsalt"] = "quern"  # the same figures give the same bytes
    return pyplot


def plot_batches(rows: list[dict], file: Path) -> None:
    """Tokens a second against the batch size, of both and of the limit, a model beside the other."""
    pyplot = _pyplot()
    rows = [row for row in rows if row["phase"] == "decode" and row["top_k"] == 0]
    models = [model for model in NAMES if any(row["model"] == model for row in rows)]
    figure, axes = pyplot.subplots(1, len(models), figsize=(5.5 * len(models), 4), squeeze=False)
    for axis, model in zip(axes[0], models):
        mine = sorted((row for row in rows if row["model"] == model), key=lambda row: row["batch"])
        batches = [row["batch"] for row in mine]
        for name, label, style in (("quern", "quern", "o-"), ("peer", "llama.cpp", "s-")):
            axis.plot(batches, [row[name] for row in mine], style, label=label)
        roof = [row["roof"] for row in mine]
        if all(roof):
            axis.plot(batches, roof, "k:", label="limit of the machine")
        axis.set(title=NAMES[model], xlabel="sequences at once", ylabel="tokens a second", xscale="log", yscale="log")
        axis.set_xticks(batches, [str(batch) for batch in batches])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(file, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def plot_load(points: list[dict], file: Path) -> None:
    """Latency against load: TTFT and ITL of both servers at each number of clients."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4))
    for axis, what, label in zip(axes, ("ttft_seconds", "itl_seconds"), ("TTFT", "ITL")):
        for name, legend, style in (("quern", "quern-serve", "o-"), ("peer", "llama-server", "s-")):
            axis.plot([point[name]["output_tokens_per_second"] for point in points], [point[name][what]["p50"] * 1000 for point in points],
                      style, label=legend)
            for point in points:
                axis.annotate(str(point["clients"]), (point[name]["output_tokens_per_second"], point[name][what]["p50"] * 1000),
                              textcoords="offset points", xytext=(4, 4), fontsize=7)
        axis.set(xlabel="generated tokens a second (at each point: clients)", ylabel=f"{label} p50, ms", yscale="log")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(file, format="svg", metadata={"Date": None})
    pyplot.close(figure)
