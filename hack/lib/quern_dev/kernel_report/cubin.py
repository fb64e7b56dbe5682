"""What nvcc made of the kernels: registers, spills, shared memory and instructions, read out of cubins without a GPU."""

import re
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .. import console

# The report's columns: a name and what SASS calls it (NVIDIA, CUDA Binary Utilities, "Instruction Set Reference").
CLASSES = {
    "MMA": r"(HMMA|IMMA|QMMA|HGMMA|IGMMA|QGMMA)\b",
    "LDG.128": r"LDG\.E\.(?:\w+\.)*128\b",
    "LDG": r"LDG\b",
    "LDGSTS": r"LDGSTS\b",
    "LDSM": r"LDSM\b",
    "LDS": r"LDS\b",
    "STS": r"STS\b",
    "STG": r"STG\b",
    "SHFL": r"SHFL\b",
    "BAR": r"BAR\b",
    "spill": r"(STL|LDL)\b",
}
_CLASSES = {name: re.compile(pattern) for name, pattern in CLASSES.items()}
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)


@dataclass
class Compiled:
    """One kernel for one architecture."""

    kernel: str  # as c++filt writes it, without what it returns and takes
    arch: str  # "sm_80"
    registers: int = 0  # of a thread
    stack: int = 0  # bytes of a thread, spills among them
    static_shared: int = 0  # bytes of a thread block
    instructions: Counter = field(default_factory=Counter)  # by CLASSES, and "all"

    @property
    def spills(self) -> int:
        return self.instructions["spill"]


def _run(*command) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise console.Failure(f"{Path(str(command[0])).name} ended with {done.returncode}: {done.stderr.strip()[:500]}")
    return done.stdout


def short_name(demangled: str) -> str:
    """`void quern::kernels::W4A16Kernel<__half, (quern::kernels::W4Format)0, 0>(…)` → `W4A16Kernel<__half, (W4Format)0, 0>`."""
    name = demangled.removeprefix("void ").replace("quern::kernels::", "").replace("(anonymous namespace)::", "")
    depth = 0
    for i, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            return name[:i]
    return name


def _demangle(names: list[str]) -> dict[str, str]:
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return dict(zip(names, map(short_name, done.stdout.splitlines())))


def parse_usage(text: str) -> dict[tuple[str, str], dict[str, int]]:
    """{(mangled name, arch): {"REG": …}} of `cuobjdump -res-usage`."""
    found, arch, name = {}, "", ""
    for line in text.splitlines():
        if match := re.match(r"arch = (sm_\w+)", line):
            arch = match[1]
        elif match := re.match(r"\s*Function (\S+):", line):
            name = match[1]
        elif name and "REG:" in line:
            found[name, arch] = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)}
            name = ""
    return found


def parse_sass(text: str) -> dict[tuple[str, str], Counter]:
    """{(mangled name, arch): counts} of `cuobjdump -sass`."""
    found, arch = {}, ""
    for part in re.split(r"(?m)^(?=arch = |\s+Function : )", text):
        if match := re.match(r"arch = (sm_\w+)", part):
            arch = match[1]
        elif match := re.match(r"\s+Function : (\S+)", part):
            counts = Counter()
            for opcode in _INSTRUCTION.findall(part):
                if opcode.split(".")[0] == "NOP":
                    continue
                counts["all"] += 1
                counts.update(name for name, pattern in _CLASSES.items() if pattern.match(opcode))
            found[match[1], arch] = counts
    return found


def read(cuobjdump: Path, library: Path) -> list[Compiled]:
    """All kernels of a library or program, by architecture and name."""
    usage = parse_usage(_run(cuobjdump, "-res-usage", library))
    sass = parse_sass(_run(cuobjdump, "-sass", library))
    if not usage or usage.keys() != sass.keys():
        raise console.Failure(f"{library} has no kernels that cuobjdump can read both ways ({len(usage)} and {len(sass)})")
    names = _demangle(sorted({name for name, _ in usage}))
    kernels = [Compiled(names[name], arch, numbers["REG"], numbers["STACK"], numbers["SHARED"], sass[name, arch])
               for (name, arch), numbers in usage.items()]
    return sorted(kernels, key=lambda one: (one.kernel, one.arch))
