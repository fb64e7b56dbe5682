"""llguidance, the library behind runtime/constraints: a static library and its header, built by Cargo.

hack/constraints pins it and everything that it brings (Cargo.lock). It is built into <cache>/llguidance-<version>-<key>/,
where the key is a hash of those files and the build settings.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import console, paths

_CRATE = paths.REPO / "hack" / "constraints"
_OLDEST = (1, 87)  # rustc; what llguidance names
_SETTINGS = ("cargo", "rustc", "build --release --locked", "strip --strip-debug")


def _version() -> str:
    found = re.search(r'^llguidance = \{ version = "=([0-9.]+)"', (_CRATE / "Cargo.toml").read_text(), re.MULTILINE)
    if not found:
        raise console.Failure(f"{_CRATE / 'Cargo.toml'} pins no llguidance")
    return found[1]


def root() -> Path:
    """Where include/llguidance.h and lib/libquern_llguidance.a lie, or will lie once built."""
    digest = hashlib.sha256(repr(_SETTINGS).encode())
    for name in ("Cargo.toml", "Cargo.lock", "lib.rs"):
        digest.update(f"\n{name}\n".encode() + (_CRATE / name).read_bytes())
    return paths.cache_dir() / f"llguidance-{_version()}-{digest.hexdigest()[:10]}"


def _toolchain() -> tuple[Path, Path]:
    """cargo and rustc: Debian's (rustc-web), else what PATH has."""
    pairs = [(Path("/usr/bin/cargo"), Path("/usr/bin/rustc"))]
    if shutil.which("cargo") and shutil.which("rustc"):
        pairs.append((Path(shutil.which("cargo")), Path(shutil.which("rustc"))))
    seen = []
    for cargo, rustc in pairs:
        if not (cargo.exists() and rustc.exists()):
            continue
        text = subprocess.run([rustc, "--version"], capture_output=True, text=True, check=False).stdout
        version = re.match(r"rustc (\d+)\.(\d+)", text)
        if version and (int(version[1]), int(version[2])) >= _OLDEST:
            return cargo, rustc
        seen.append(f"{rustc} is {text.strip() or 'broken'}")
    wanted = ".".join(map(str, _OLDEST))
    raise console.Failure(f"no Rust compiler of {wanted} or newer ({'; '.join(seen) or 'none at all'}). Debian 12 has one: "
                          "apt-get install rustc-web cargo-web (hack/setup does, unless --no-packages)")


def ensure() -> Path:
    """Builds the library unless it is there."""
    target = root()
    if (target / ".complete").exists():
        return target
    cargo, rustc = _toolchain()
    log = paths.logs_dir() / "llguidance.log"
    with tempfile.TemporaryDirectory(prefix="quern-llguidance-", dir=paths.cache_dir()) as scratch_name:
        scratch = Path(scratch_name)
        env = {key: value for key, value in os.environ.items()
               if not key.startswith(("CARGO_PROFILE", "CARGO_BUILD", "CARGO_ENCODED", "RUSTC", "RUSTFLAGS"))}
        env.update(RUSTC=str(rustc), CARGO_TARGET_DIR=str(scratch / "target"), CARGO_NET_RETRY="5", CARGO_TERM_COLOR="never")
        manifest = ["--manifest-path", _CRATE / "Cargo.toml", "--locked"]
        console.run_logged(f"llguidance {_version()}: download its crates", [cargo, "fetch", *manifest], log, env=env, attempts=5)
        console.run_logged(f"llguidance {_version()}: build (about 1 minute)",
                           [cargo, "build", "--release", "--offline", *manifest], log, env=env)
        _lay_out(cargo, scratch, env)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(scratch / "out", target)
    return target


def _lay_out(cargo: Path, scratch: Path, env: dict) -> None:
    """The library without debug information, the header, and the licence, from where Cargo has them."""
    out = scratch / "out"
    (out / "lib").mkdir(parents=True)
    (out / "include").mkdir()
    metadata = json.loads(subprocess.run(
        [cargo, "metadata", "--offline", "--locked", "--format-version", "1", "--manifest-path", _CRATE / "Cargo.toml"],
        env=env, check=True, capture_output=True, text=True).stdout)
    source = next(Path(package["manifest_path"]).parent for package in metadata["packages"] if package["name"] == "llguidance")
    shutil.copy(source / "llguidance.h", out / "include")
    shutil.copy(source / "LICENSE", out)
    library = out / "lib" / "libquern_llguidance.a"
    shutil.copy(scratch / "target" / "release" / library.name, library)
    subprocess.run(["strip", "--strip-debug", library], check=True)
    (out / ".complete").touch()
