"""Container images as hack/images writes them: valid layouts, the same bytes for the same input."""

import hashlib
import json
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "hack" / "lib"))
from quern_dev import console, images, oci  # noqa: E402

BASE = [oci.Entry("etc/passwd", data=b"root:x:0:0::/:\n"), oci.Entry("lib", link="usr/lib")]
PROGRAM = [oci.Entry("usr/bin/program", 0o755, data=b"#!")]


def blob(tar, digest):
    return tar.extractfile("blobs/" + digest.replace(":", "/")).read()


class Oci(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.path = Path(self.directory.name)

    def write(self, name, program=PROGRAM, config=None):
        return oci.write(self.path / name, "localhost/quern/x", [BASE, program], config or {"User": "1:1"})

    def test_the_same_input_gives_the_same_bytes_and_name(self):
        first, second = self.write("a.tar"), self.write("b.tar")
        self.assertEqual(first.reference, second.reference)
        self.assertEqual(first.archive.read_bytes(), second.archive.read_bytes())

    def test_another_program_or_another_user_gives_another_tag(self):
        tags = {self.write("a.tar").reference,
                self.write("b.tar", [oci.Entry("usr/bin/program", 0o755, data=b"#?")]).reference,
                self.write("c.tar", config={"User": "2:2"}).reference}
        self.assertEqual(len(tags), 3)

    def test_every_descriptor_names_a_blob_of_that_digest_and_size(self):
        image = self.write("a.tar")
        with tarfile.open(image.archive) as tar:
            self.assertEqual(json.load(tar.extractfile("oci-layout")), {"imageLayoutVersion": "1.0.0"})
            (manifest_descriptor,) = json.load(tar.extractfile("index.json"))["manifests"]
            self.assertEqual(manifest_descriptor["annotations"]["io.containerd.image.name"], image.reference)
            manifest = json.loads(blob(tar, manifest_descriptor["digest"]))
            for descriptor in (manifest_descriptor, manifest["config"], *manifest["layers"]):
                data = blob(tar, descriptor["digest"])
                self.assertEqual("sha256:" + hashlib.sha256(data).hexdigest(), descriptor["digest"])
                self.assertEqual(len(data), descriptor["size"])
            config = json.loads(blob(tar, manifest["config"]["digest"]))
            self.assertEqual(config["rootfs"]["diff_ids"], [layer["digest"] for layer in manifest["layers"]])

    def test_layers_hold_sorted_entries_with_their_parents_owned_by_root_at_time_zero(self):
        image = self.write("a.tar")
        with tarfile.open(image.archive) as tar:
            manifest = json.loads(blob(tar, json.load(tar.extractfile("index.json"))["manifests"][0]["digest"]))
            layer = tar.extractfile("blobs/" + manifest["layers"][1]["digest"].replace(":", "/"))
            with tarfile.open(fileobj=layer) as files:
                members = files.getmembers()
        self.assertEqual([member.name for member in members], ["usr", "usr/bin", "usr/bin/program"])
        self.assertEqual({(member.uid, member.gid, member.mtime) for member in members}, {(0, 0, 0)})
        self.assertEqual(members[-1].mode, 0o755)

    def test_a_program_that_was_not_built_is_named_with_the_command_that_builds_it(self):
        with self.assertRaisesRegex(console.Failure, "quern-serve does not exist.*ninja -C build/release quern-serve"):
            images.build(images.IMAGES[0], self.path, self.path)

    def test_the_libraries_of_a_program_are_found_with_its_loader(self):
        found = images._libraries(Path("/bin/sh"))
        self.assertTrue(any(name.startswith("libc.so") for name in found))
        self.assertTrue(any(name.startswith("/") and "ld-linux" in name for name in found))


if __name__ == "__main__":
    unittest.main()
