"""The CUDA toolkit: an installed one of 13.x where there is one, else one put together from NVIDIA's Python wheels.

The wheels' toolkit lies in <cache>/cuda-13.0-<key>/, laid out as an installed one (bin, include, lib64, nvvm); the key is a hash of
its list of wheels. It compiles without a GPU or a driver. The stub libcuda.so in it is for linking only: never ship it.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from . import console, paths

_REQUIREMENTS = paths.REPO / "hack" / "requirements-cuda.txt"
_LAYOUT = "1"  # change it when _assemble() does
_MAJOR = 13
_PROGRAMS = ("bin", "nvvm/bin")


@dataclass(frozen=True)
class Toolkit:
    root: Path
    version: str  # "13.0"


def cached_root() -> Path:
    key = hashlib.sha256(_REQUIREMENTS.read_bytes() + _LAYOUT.encode()).hexdigest()[:10]
    return paths.cache_dir() / f"cuda-13.0-{key}"


def version_of(nvcc: Path) -> str:
    """The release of a toolkit, as nvcc says it; "" if it does not run."""
    try:
        said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""
    found = re.search(r"release (\d+\.\d+)", said)
    return found[1] if found else ""


def installed() -> Toolkit | None:
    """The toolkit of CUDA_HOME (or CUDA_PATH), else that of the nvcc on PATH, if it is of the release that Quern is built with."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if home := os.environ.get(variable):
            version = version_of(Path(home) / "bin" / "nvcc")
            if not version:
                raise console.Failure(f"{variable} is {home}, where bin/nvcc does not run; let it name a CUDA {_MAJOR} toolkit, or unset "
                                      "it for the one of hack/setup --cuda")
            return _accepted(Toolkit(Path(home), version), variable)
    nvcc = shutil.which("nvcc")
    if not nvcc:
        return None
    return _accepted(Toolkit(Path(os.path.realpath(nvcc)).parents[1], version_of(Path(nvcc))), "the nvcc on PATH")


def _accepted(toolkit: Toolkit, source: str) -> Toolkit | None:
    if toolkit.version.split(".")[0] == str(_MAJOR):
        return toolkit
    console.note(f"CUDA {toolkit.version or '(no version)'} in {toolkit.root} ({source}) is left alone: {_MAJOR}.x is needed")
    return None


def root() -> Path:
    """Where the toolkit lies, or will lie once hack/setup --cuda has run."""
    toolkit = installed()
    return toolkit.root if toolkit else cached_root()


def ensure(python: Path) -> Path:
    """Puts the toolkit into the cache unless it is there or one is installed. Returns its root. `python` is one that has pip."""
    if toolkit := installed():
        console.say(f"  CUDA {toolkit.version} is installed in {toolkit.root}: used as it is")
        return toolkit.root
    target = cached_root()
    if (target / ".complete").exists():
        return target
    if platform.machine() not in ("x86_64", "aarch64"):
        raise console.Failure(f"NVIDIA has no CUDA wheels for {platform.machine()}; install CUDA {_MAJOR} and set CUDA_HOME")
    wheels = paths.cache_dir() / f"{target.name}.wheels"  # kept until the end: a second try takes only what is missing
    wheels.mkdir(parents=True, exist_ok=True)
    console.run_logged("download the CUDA 13.0 compiler (115 MB)",
                       [python, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:",
                        "-d", wheels, "-r", _REQUIREMENTS], paths.logs_dir() / "cuda.log", attempts=4)
    with console.stage("assemble the CUDA toolkit"):
        _assemble(wheels, target)
    shutil.rmtree(wheels, ignore_errors=True)
    return target


def _assemble(wheels: Path, target: Path) -> None:
    """Unpacks the wheels next to `target` and moves the finished toolkit there."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(scratch)
        toolkit = scratch / "nvidia" / "cu13"
        if not (toolkit / "bin" / "nvcc").exists():
            raise console.Failure(f"the wheels in {wheels} hold no nvidia/cu13/bin/nvcc")
        _mend(toolkit)
        version = version_of(toolkit / "bin" / "nvcc")
        if version != "13.0":
            raise console.Failure(f"the assembled nvcc does not run or is not of 13.0 (it says {version or 'nothing'}); see {toolkit}")
        (toolkit / ".complete").touch()
        shutil.rmtree(target, ignore_errors=True)
        os.replace(toolkit, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _mend(toolkit: Path) -> None:
    """What a wheel loses or leaves out: run bits, the names that linkers look for, and a driver to link against."""
    for folder in _PROGRAMS:
        for program in (toolkit / folder).iterdir():
            if program.is_file():
                program.chmod(0o755)
    lib = toolkit / "lib"
    (toolkit / "lib64").symlink_to("lib")
    for library in lib.glob("libcudart.so.*"):
        (lib / "libcudart.so").unlink(missing_ok=True)
        (lib / "libcudart.so").symlink_to(library.name)
    (lib / "stubs").mkdir(exist_ok=True)
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler:
        subprocess.run([compiler, "-shared", "-x", "c", "/dev/null", "-Wl,-soname,libcuda.so.1", "-o", lib / "stubs" / "libcuda.so"],
                       check=True)
