"""Budgets of the kernels: kernels/cuda/<family>/budgets.json, an object for each name that kernels begin with. The longest counts.

    {"W4A16Kernel": {"registers": 216, "needs": ["MMA", "LDGSTS"], "wavefront_ratio": 1.0}}

registers: of a thread, at most. needs: instruction classes that each form must have. spills: instructions, at most; 0 where it is not
named. load_ratio: bytes read of what weighs most (weights, the KV cache, logits) over its own, at most. store_ratio: bytes written over
those of the results, at most. Both in whole sectors of 32 bytes. wavefront_ratio: of shared memory, over the fewest, at most.
"""

import json
from pathlib import Path

from .. import console
from .cubin import CLASSES, Compiled

# A budget, what a launch did, what it was to do (0: not told), and the sentence.
_RATIOS = (
    ("load_ratio", "bulk_load_bytes", "bulk_bytes", "reads what weighs most {:.3f} times; {} may be"),
    ("store_ratio", "store_bytes", "written_bytes", "writes {:.3f} times its results; {} may be"),
    ("wavefront_ratio", "shared_wavefronts", "least_wavefronts", "shared memory takes {:.3f} times the fewest wavefronts; {} may be"),
)
_KEYS = {"registers", "spills", "needs", *(name for name, *_ in _RATIOS)}


def load(folder: Path) -> dict[str, dict]:
    budgets: dict[str, dict] = {}
    for path in sorted(folder.glob("*/budgets.json")):
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise console.Failure(f"{path}: {error}") from error
        for kernel, budget in found.items():
            if unknown := set(budget) - _KEYS:
                raise console.Failure(f"{path}: {kernel}: unknown budget {sorted(unknown)[0]!r}; there are {', '.join(sorted(_KEYS))}")
            if unknown := set(budget.get("needs", [])) - set(CLASSES):
                raise console.Failure(f"{path}: {kernel}: needs {sorted(unknown)[0]!r}; there are {', '.join(CLASSES)}")
            if kernel in budgets:
                raise console.Failure(f"{path}: {kernel} has a budget in another folder, too")
            budgets[kernel] = budget
    return budgets


def of(kernel: str, budgets: dict[str, dict]) -> dict | None:
    names = [name for name in budgets if kernel.startswith(name)]
    return budgets[max(names, key=len)] if names else None


def over(compiled: list[Compiled], traffic: list[dict], budgets: dict[str, dict]) -> list[str]:
    """What goes over its budget, a line each; a kernel without one does, too."""
    wrong = []
    for name in sorted({one.kernel.split("<")[0] for one in compiled if of(one.kernel, budgets) is None}):
        wrong.append(f"{name}: has no budget; give it one in kernels/cuda/<family>/budgets.json")
    for one in compiled:
        budget = of(one.kernel, budgets) or {}
        where = f"{one.kernel} for {one.arch}"
        if one.spills > budget.get("spills", 0):
            wrong.append(f"{where}: {one.spills} instructions spill; {budget.get('spills', 0)} may")
        if one.registers > budget.get("registers", 255):
            wrong.append(f"{where}: {one.registers} registers; {budget['registers']} may be")
        for need in budget.get("needs", []):
            if not one.instructions[need]:
                wrong.append(f"{where}: no {need} among its instructions")
    for launch in traffic:
        budget = of(launch["kernel"], budgets) or {}
        where = f"{launch['op']} {launch['shape']} batch {launch['batch']}: {launch['kernel'].split('<')[0]}"
        for name, did, least, sentence in _RATIOS:
            if name in budget and launch[least] and launch[did] > budget[name] * launch[least]:
                wrong.append(f"{where} " + sentence.format(launch[did] / launch[least], budget[name]))
    return wrong
