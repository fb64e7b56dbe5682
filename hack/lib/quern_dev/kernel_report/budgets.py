"""Budgets of the kernels: kernels/cuda/<family>/budgets.json, an object for each name that kernels begin with. The longest counts.

    {"W4A16Kernel": {"registers": 216, "needs": ["MMA", "LDGSTS"], "wavefront_ratio": 1.0}}

registers: of a thread, at most. needs: instruction classes that each form must have. spills: instructions, at most; 0 where it is not
named. load_ratio: bytes read from global memory over those of all operands, read once, at most, for the shapes of up to `up_to_batch`
rows. wavefront_ratio: of shared memory, over the fewest, at most.
"""

import json
from pathlib import Path

from .. import console
from .cubin import CLASSES, Compiled

_KEYS = {"registers", "spills", "needs", "load_ratio", "up_to_batch", "wavefront_ratio"}


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
        where = f"{launch['op']} {launch['shape']} batch {launch['batch']}"
        operands = launch["weight_bytes"] + launch["other_bytes"]
        if launch["batch"] <= budget.get("up_to_batch", launch["batch"]) and "load_ratio" in budget:
            ratio = launch["load_bytes"] / operands
            if ratio > budget["load_ratio"]:
                wrong.append(f"{where}: reads {ratio:.3f} times its operands; {budget['load_ratio']} may be")
        if launch["shared_wavefronts"] > budget.get("wavefront_ratio", float("inf")) * max(launch["least_wavefronts"], 1):
            ratio = launch["shared_wavefronts"] / launch["least_wavefronts"]
            wrong.append(f"{where}: shared memory takes {ratio:.3f} times the fewest wavefronts; {budget['wavefront_ratio']} may be")
    return wrong
