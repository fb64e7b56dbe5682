"""The container images: small, unprivileged, and with nothing in them but what the program needs."""

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from conftest import REPO
from quern_dev import images, nccl


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """name -> (what hack/images says of it, its config, every path in it)."""
    directory = tmp_path_factory.mktemp("images")
    command = [REPO / "hack" / "images", "--json", "--output", directory, "--binaries", os.environ["QUERN_BIN"]]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    return {name: read(image) for name, image in said.items()}


def read(image):
    """(`image`, its config, every path in it) of an archive."""
    with tarfile.open(image["archive"]) as archive:
        def blob(digest):
            return archive.extractfile("blobs/sha256/" + digest.removeprefix("sha256:"))

        manifest = json.load(blob(image["digest"]))
        paths = {}
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=blob(layer["digest"])) as files:
                paths |= {entry.name: entry for entry in files}
        return image, json.load(blob(manifest["config"]["digest"]))["config"], paths


@pytest.mark.parametrize(("name", "megabytes"), [("serve", 40), ("operator", 40)])
def test_it_is_small_and_runs_as_nobody_in_particular(built, name, megabytes):
    image, config, paths = built[name]
    print(f"{name}: {image['size'] / 1e6:.1f} MB, {len(paths)} paths")
    assert 1e6 < image["size"] < megabytes * 1e6
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == [f"/usr/bin/quern-{name}"]


@pytest.mark.parametrize("name", ["serve", "operator"])
def test_it_holds_one_program_no_shell_and_nothing_that_gains_rights(built, name):
    _, _, paths = built[name]
    assert [path for path in paths if path.startswith("usr/bin/")] == [f"usr/bin/quern-{name}"]
    for path, entry in paths.items():
        assert entry.uid == entry.gid == 0
        assert not entry.mode & 0o6000, path
        assert entry.isdir() or entry.issym() or not entry.mode & 0o022, path


def test_the_same_programs_give_the_same_name(built, tmp_path):
    command = [REPO / "hack" / "images", "--json", "--output", tmp_path, "--binaries", os.environ["QUERN_BIN"]]
    again = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    for name, (image, _, _) in built.items():
        assert (again[name]["reference"], again[name]["digest"]) == (image["reference"], image["digest"])


def needed(file):
    """The names of the shared libraries that an ELF file asks for."""
    said = subprocess.run(["readelf", "--dynamic", "--wide", file], capture_output=True, text=True, check=True).stdout
    return {line.rpartition("[")[2].rstrip("]") for line in said.splitlines() if "(NEEDED)" in line}


def test_the_image_with_cuda_is_whole_but_for_the_driver(tmp_path):
    """NVIDIA's NCCL where it is in the cache, else a library of this machine in its place; the program is the release build's."""
    root = nccl.root()
    if not nccl.is_cached():
        root = tmp_path / "nccl"
        root.mkdir()
        (root / nccl.LICENSE).write_text("none")
        shutil.copy(images._libraries(Path(os.environ["QUERN_BIN"]) / "quern-serve")["libstdc++.so.6"], root / nccl.LIBRARY)
    print(f"NCCL: {root}")
    binaries = Path(os.environ["QUERN_BIN"])
    image = images.build(images.SERVE_CUDA, binaries, tmp_path, root)
    _, config, paths = read({"archive": image.archive, "digest": image.digest})
    libraries = "usr/lib/x86_64-linux-gnu/"
    assert paths[libraries + "libnccl.so.2"].size == (root / nccl.LIBRARY).stat().st_size
    assert image.size < (root / nccl.LIBRARY).stat().st_size + 40e6
    assert config["User"] == "65532:65532" and config["Entrypoint"] == ["/usr/bin/quern-serve"]
    assert not [path for path in paths if images._DRIVER_LIBRARY.match(path.rpartition("/")[2])]
    images.write_rootfs(images.SERVE_CUDA, binaries, tmp_path / "rootfs", root)
    held = {path.rpartition("/")[2] for path in paths}
    for path, entry in paths.items():
        if entry.isfile() and (tmp_path / "rootfs" / path).read_bytes()[:4] == b"\x7fELF":
            assert needed(tmp_path / "rootfs" / path) <= held, path
