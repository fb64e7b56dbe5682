"""The container images: small, unprivileged, and with nothing in them but what the program needs."""

import json
import os
import subprocess
import tarfile

import pytest
from conftest import REPO


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """name -> (what hack/images says of it, its config, every path in it)."""
    directory = tmp_path_factory.mktemp("images")
    command = [REPO / "hack" / "images", "--json", "--output", directory, "--binaries", os.environ["QUERN_BIN"]]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    out = {}
    for name, image in said.items():
        with tarfile.open(image["archive"]) as archive:
            def blob(digest, archive=archive):
                return archive.extractfile("blobs/sha256/" + digest.removeprefix("sha256:"))

            manifest = json.load(blob(image["digest"]))
            paths = {}
            for layer in manifest["layers"]:
                with tarfile.open(fileobj=blob(layer["digest"])) as files:
                    paths |= {entry.name: entry for entry in files}
            out[name] = (image, json.load(blob(manifest["config"]["digest"]))["config"], paths)
    return out


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
