"""Writes container images as OCI archives, without a registry or a container engine.

The same input gives the same bytes: entries are sorted, times are 0, owners are numbers.
Format: OCI image specification 1.0, "image layout", as one tar file.
"""

import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Entry:
    """One file, directory or link of a layer. Exactly one of data, source and link; none is a directory."""

    path: str  # without a leading slash
    mode: int = 0o644
    data: bytes | None = None
    source: Path | None = None
    link: str | None = None


@dataclass(frozen=True)
class Image:
    reference: str  # name:tag
    digest: str  # of the manifest, "sha256:…"
    size: int  # of all layers, in bytes
    archive: Path


def _layer(entries: list[Entry]) -> bytes:
    """A tar of the entries and of every directory above them."""
    by_path = {entry.path: entry for entry in entries}
    for entry in entries:
        for parent in list(Path(entry.path).parents)[:-1]:
            by_path.setdefault(str(parent), Entry(str(parent), mode=0o755))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(by_path):
            _add(tar, by_path[path])
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.path)
    info.mode = entry.mode
    if entry.link is not None:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.link, 0o777
        tar.addfile(info)
    elif entry.data is None and entry.source is None:
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    else:
        data = entry.data if entry.data is not None else entry.source.read_bytes()
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def _json(value) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def write(archive: Path, name: str, layers: list[list[Entry]], config: dict, tag: str | None = None) -> Image:
    """Writes `archive`. `config` is the image's run configuration (User, Entrypoint, Env, Labels, …).

    Without a tag, the tag is made from the content, so that changed content never hides behind an old name.
    """
    blobs: dict[str, bytes] = {}

    def store(data: bytes, media_type: str) -> dict:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    layer_descriptors = [store(_layer(entries), _LAYER) for entries in layers]
    config_descriptor = store(_json({
        "architecture": "amd64", "os": "linux", "created": "1970-01-01T00:00:00Z", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layer_descriptors]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "hack/images"} for _ in layers],
    }), _CONFIG)
    manifest = store(_json({"schemaVersion": 2, "mediaType": _MANIFEST, "config": config_descriptor,
                            "layers": layer_descriptors}), _MANIFEST)
    reference = f"{name}:{tag or manifest['digest'].removeprefix('sha256:')[:12]}"
    manifest["annotations"] = {"io.containerd.image.name": reference,
                               "org.opencontainers.image.ref.name": reference.rpartition(":")[2]}
    index = _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [manifest]})
    entries = [Entry("oci-layout", data=_json({"imageLayoutVersion": "1.0.0"})), Entry("index.json", data=index)]
    entries += [Entry(f"blobs/{digest.replace(':', '/')}", data=data) for digest, data in blobs.items()]
    archive.parent.mkdir(parents=True, exist_ok=True)
    temporary = archive.with_name(f".{archive.name}.{os.getpid()}")
    temporary.write_bytes(_layer(entries))
    os.replace(temporary, archive)
    return Image(reference, manifest["digest"], sum(layer["size"] for layer in layer_descriptors), archive)


def names(archive: Path) -> dict[str, str] | None:
    """The images in an archive by reference, with their digests; None if it is not an archive as `write` makes them."""
    try:
        with tarfile.open(archive) as tar:
            index = json.load(tar.extractfile("index.json"))
            return {one["annotations"]["io.containerd.image.name"]: one["digest"] for one in index["manifests"]}
    except (tarfile.TarError, KeyError, TypeError, ValueError, AttributeError):
        return None
