"""What goes into Quern's container images: a program and the closure of its shared libraries.

Parts of glibc that are loaded at run time and so are in no program's closure:
- name look-ups: since glibc 2.34 the "files" and "dns" services are inside libc itself;
  nsswitch.conf names just these two;
- gconv (iconv's tables): UTF-8 conversions are inside libc, and no other is used;
- the locale C.UTF-8 is inside libc since 2.35.
OpenSSL's default provider is inside libcrypto; it finds the CA certificates where Debian puts them.

The image with CUDA has NCCL besides, which quern-serve opens at run time; CUDA's own run-time library is linked into quern-serve. The
driver's libraries (libcuda.so.1 and those beside it) are never in an image: they must be of the driver in the node's kernel, and NVIDIA's
container toolkit mounts the node's. A stub of libcuda.so, for linking, would hide them.
"""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import console, nccl, oci, paths

_USER = 65532
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Definition:
    name: str
    programs: tuple[str, ...]  # the first is the entry point
    title: str
    cuda: bool = False  # with NCCL, for pods with GPUs

    @property
    def repository(self) -> str:
        return f"localhost/quern/{self.name}"

    @property
    def binaries(self) -> Path:
        """Where a build puts its programs."""
        return paths.REPO / "build" / ("cuda" if self.cuda else "release") / "bin"

    @property
    def build_command(self) -> str:
        if self.cuda:
            return f"hack/setup --cuda && cmake --preset release -B build/cuda -DQUERN_CUDA=ON && ninja -C build/cuda {self.programs[0]}"
        return f"cmake --preset release && ninja -C build/release {self.programs[0]}"


IMAGES = (
    Definition("serve", ("quern-serve",), "Quern's serving runtime"),
    Definition("operator", ("quern-operator",), "Quern's Kubernetes operator"),
)
SERVE_CUDA = Definition("serve-cuda", ("quern-serve",), "Quern's serving runtime, for NVIDIA GPUs", cuda=True)  # made only when asked for
ALL = (*IMAGES, SERVE_CUDA)

# CUDA 13 runs on drivers of the 580 series and later.
CUDA_VERSION, LEAST_DRIVER = "13.0", "580"
_CUDA_ENV = (
    # Where the node's driver may be mounted, besides where the loader looks by itself: by GKE's device plugin, and by CDI on nodes of
    # Red Hat's kind. The toolkit writes no ld.so.cache into an image that has none.
    "LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/usr/lib64",
    # What of the driver is mounted: CUDA's libraries, and NVML's, which NCCL reads the topology from.
    "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    # Checked by the container toolkit as the container starts, but not in its CDI mode. NVIDIA_VISIBLE_DEVICES is the device plugin's to
    # set: in the image it would give every GPU to a pod that asks for none.
    f"NVIDIA_REQUIRE_CUDA=cuda>={CUDA_VERSION}",
)
_DRIVER_LIBRARY = re.compile(r"lib(cuda|cudadebugger|nvcuvid|nvoptix|nvidia-[\w-]+)\.so(\.|$)")


def _libraries(program: Path, with_driver: bool = False) -> dict[str, Path]:
    """Every shared library the program needs, by the name it is looked up under, and its loader by full path.

    `with_driver`: there will be an NVIDIA driver where it runs, whose libraries are left out.
    """
    result = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
    if "statically linked" in result.stdout or "not a dynamic executable" in result.stdout + result.stderr:
        return {}
    if result.returncode != 0:
        raise console.Failure(f"ldd {program} failed: {result.stderr.strip()}")
    found: dict[str, Path] = {}
    for line in result.stdout.splitlines():
        if with_driver and _DRIVER_LIBRARY.match(line.strip()):
            continue
        if "not found" in line:
            raise console.Failure(f"{program} needs {line.split()[0]}, which is not on this machine")
        if match := re.match(r"\s*(\S+) => (/\S+)", line):
            found[match[1]] = Path(match[2])
        elif match := re.match(r"\s*(/\S+) \(0x", line):
            found[match[1]] = Path(match[1])
    return found


def _base() -> list[oci.Entry]:
    """Users, name look-ups, certificates. The same bytes in every image, so stored once."""
    def text(path: str, content: str) -> oci.Entry:
        return oci.Entry(path, data=content.encode())

    return [
        text("etc/passwd", f"root:x:0:0:root:/:/sbin/nologin\nquern:x:{_USER}:{_USER}:quern:/:/sbin/nologin\n"),
        text("etc/group", f"root:x:0:\nquern:x:{_USER}:\n"),
        text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n"),
        # glibc asks for these two by name.
        text("etc/services", "http 80/tcp\nhttps 443/tcp\n"), text("etc/protocols", "tcp 6 TCP\nudp 17 UDP\n"),
        oci.Entry("etc/ssl/certs/ca-certificates.crt", source=_CERTIFICATES),
        oci.Entry("usr/lib/ssl/cert.pem", link="/etc/ssl/certs/ca-certificates.crt"),
        oci.Entry("usr/lib/ssl/certs", link="/etc/ssl/certs"),
        oci.Entry("lib", link="usr/lib"), oci.Entry("lib64", link="usr/lib64"), oci.Entry("bin", link="usr/bin"),
        oci.Entry("tmp", 0o1777),
    ]


def _library_entries(libraries: dict[str, Path]) -> list[oci.Entry]:
    entries = []
    for name, path in libraries.items():
        if name.startswith("/"):  # the loader, at the path written into the program
            entries.append(oci.Entry("usr" + re.sub(r"^/usr", "", name), 0o755, source=path.resolve()))
        else:
            entries.append(oci.Entry(f"{_LIBRARIES}/{name}", 0o644, source=path.resolve()))
    return entries


def _stripped(program: Path, scratch: Path) -> Path:
    """A copy without debugging sections; function names stay, for readable stack traces."""
    copy = scratch / program.name
    shutil.copyfile(program, copy)
    subprocess.run(["strip", "--strip-debug", str(copy)], check=True)
    copy.chmod(0o755)
    return copy


def _require(definition: Definition, program: Path) -> None:
    if not program.exists():
        raise console.Failure(f"{program} does not exist; build it first: {definition.build_command}")


def require_gpu_code(definition: Definition, binaries: Path) -> None:
    """Failure unless the program holds kernels that were compiled for GPUs, as nvcc puts them into a section of its own."""
    program = binaries / definition.programs[0]
    _require(definition, program)
    said = subprocess.run(["readelf", "--sections", "--wide", str(program)], capture_output=True, text=True, check=True).stdout
    if " .nv_fatbin " not in said:
        raise console.Failure(f"{program} holds no code for GPUs; build it with CUDA: {definition.build_command}")


def refuse_driver(layers: list[list[oci.Entry]]) -> None:
    """Failure if a library of NVIDIA's driver, or a stub of one, is in a layer."""
    for entry in (entry for layer in layers for entry in layer):
        names = (Path(entry.path).name, Path(entry.link or "").name, entry.source.name if entry.source else "")
        if any(_DRIVER_LIBRARY.match(name) for name in names):
            raise console.Failure(f"/{entry.path} would be in the image, but belongs to the NVIDIA driver; the node's own is mounted there")


def _layers(definition: Definition, binaries: Path, scratch: Path, nccl_root: Path | None) -> list[list[oci.Entry]]:
    """Base, libraries, NCCL, programs: from what changes least to what changes most."""
    programs = [binaries / name for name in definition.programs]
    libraries: dict[str, Path] = {}
    for program in programs:
        _require(definition, program)
        libraries.update(_libraries(program, definition.cuda))
    layers = [_base(), []]
    if definition.cuda:
        libraries.update(_libraries(nccl_root / nccl.LIBRARY, definition.cuda))
        layers.append([oci.Entry(f"{_LIBRARIES}/{nccl.LIBRARY}", 0o644, source=nccl_root / nccl.LIBRARY),
                       oci.Entry(f"usr/share/doc/nccl/{nccl.LICENSE}", source=nccl_root / nccl.LICENSE)])
    layers[1] = _library_entries(libraries)
    layers.append([oci.Entry(f"usr/bin/{program.name}", 0o755, source=_stripped(program, scratch)) for program in programs])
    refuse_driver(layers)
    return layers


def config(definition: Definition) -> dict:
    """The image's run configuration. The Containerfiles say the same."""
    labels = {"org.opencontainers.image.title": definition.title, "org.opencontainers.image.licenses": "Apache-2.0"}
    if definition.cuda:
        labels |= {"org.opencontainers.image.licenses": "Apache-2.0 AND BSD-3-Clause", "dev.quern.cuda": CUDA_VERSION,
                   "dev.quern.nvidia-driver.least": LEAST_DRIVER}
    return {
        "User": f"{_USER}:{_USER}", "WorkingDir": "/", "StopSignal": "SIGTERM",
        "Entrypoint": [f"/usr/bin/{definition.programs[0]}"],
        "Env": ["PATH=/usr/bin", "LANG=C.UTF-8", *(_CUDA_ENV if definition.cuda else ())],
        "Labels": labels,
    }


def build(definition: Definition, binaries: Path, output: Path, nccl_root: Path | None = None) -> oci.Image:
    """Writes <output>/<name>.tar. `nccl_root`: where NCCL lies (nccl.ensure), for an image with CUDA."""
    with tempfile.TemporaryDirectory(prefix="quern-image-") as scratch:
        layers = _layers(definition, binaries, Path(scratch), nccl_root)
        return oci.write(output / f"{definition.name}.tar", definition.repository, layers, config(definition))


def write_rootfs(definition: Definition, binaries: Path, target: Path, nccl_root: Path | None = None) -> None:
    """Lays the same files into the directory `target`, for a Containerfile to copy into an empty image."""
    with tempfile.TemporaryDirectory(prefix="quern-image-") as scratch:
        entries = [entry for layer in _layers(definition, binaries, Path(scratch), nccl_root) for entry in layer]
        # Links to directories first: later files are below them.
        for entry in sorted(entries, key=lambda entry: (entry.link is None, entry.path)):
            path = target / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if entry.link is not None:
                path.unlink(missing_ok=True)
                path.symlink_to(entry.link)
            elif entry.data is None and entry.source is None:
                path.mkdir(exist_ok=True)
                path.chmod(entry.mode)
            else:
                path.write_bytes(entry.data if entry.data is not None else entry.source.read_bytes())
                path.chmod(entry.mode)
