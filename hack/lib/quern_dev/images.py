"""What goes into Quern's container images: a program and the closure of its shared libraries.

Parts of glibc that are loaded at run time and so are in no program's closure:
- name look-ups: since glibc 2.34 the "files" and "dns" services are inside libc itself;
  nsswitch.conf names just these two;
- gconv (iconv's tables): UTF-8 conversions are inside libc, and no other is used;
- the locale C.UTF-8 is inside libc since 2.35.
OpenSSL's default provider is inside libcrypto; it finds the CA certificates where Debian puts them.
"""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import console, oci

_USER = 65532
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Definition:
    name: str
    programs: tuple[str, ...]  # the first is the entry point
    title: str

    @property
    def repository(self) -> str:
        return f"localhost/quern/{self.name}"


IMAGES = (
    Definition("serve", ("quern-serve",), "Quern's serving runtime"),
    Definition("operator", ("quern-operator",), "Quern's Kubernetes operator"),
)


def _libraries(program: Path) -> dict[str, Path]:
    """Every shared library the program needs, by the name it is looked up under, and its loader by full path."""
    result = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
    if "statically linked" in result.stdout or "not a dynamic executable" in result.stdout + result.stderr:
        return {}
    if result.returncode != 0:
        raise console.Failure(f"ldd {program} failed: {result.stderr.strip()}")
    found: dict[str, Path] = {}
    for line in result.stdout.splitlines():
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
            entries.append(oci.Entry(f"usr/lib/x86_64-linux-gnu/{name}", 0o644, source=path.resolve()))
    return entries


def _stripped(program: Path, scratch: Path) -> Path:
    """A copy without debugging sections; function names stay, for readable stack traces."""
    copy = scratch / program.name
    shutil.copyfile(program, copy)
    subprocess.run(["strip", "--strip-debug", str(copy)], check=True)
    copy.chmod(0o755)
    return copy


def _layers(definition: Definition, binaries: Path, scratch: Path) -> list[list[oci.Entry]]:
    """Base, libraries, programs: from what changes least to what changes most."""
    programs = [binaries / name for name in definition.programs]
    libraries: dict[str, Path] = {}
    for program in programs:
        if not program.exists():
            raise console.Failure(f"{program} does not exist; build it first: "
                                  f"cmake --preset release && ninja -C build/release {program.name}")
        libraries.update(_libraries(program))
    return [_base(), _library_entries(libraries),
            [oci.Entry(f"usr/bin/{program.name}", 0o755, source=_stripped(program, scratch)) for program in programs]]


def build(definition: Definition, binaries: Path, output: Path) -> oci.Image:
    """Writes <output>/<name>.tar."""
    config = {
        "User": f"{_USER}:{_USER}", "WorkingDir": "/", "StopSignal": "SIGTERM",
        "Entrypoint": [f"/usr/bin/{definition.programs[0]}"],
        "Env": ["PATH=/usr/bin", "LANG=C.UTF-8"],
        "Labels": {"org.opencontainers.image.title": definition.title,
                   "org.opencontainers.image.licenses": "Apache-2.0"},
    }
    with tempfile.TemporaryDirectory(prefix="quern-image-") as scratch:
        layers = _layers(definition, binaries, Path(scratch))
        return oci.write(output / f"{definition.name}.tar", definition.repository, layers, config)


def write_rootfs(definition: Definition, binaries: Path, target: Path) -> None:
    """Lays the same files into the directory `target`, for a Containerfile to copy into an empty image."""
    with tempfile.TemporaryDirectory(prefix="quern-image-") as scratch:
        entries = [entry for layer in _layers(definition, binaries, Path(scratch)) for entry in layer]
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
