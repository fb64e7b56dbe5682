"""The image with CUDA: NCCL is in it, the driver never is, and what is not a CUDA build is refused."""

import json
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
REPO = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPO / "hack" / "lib"))
from quern_dev import console, images, nccl, oci  # noqa: E402

_CUDA_SECTION = '__asm__(".section .nv_fatbin,\\"a\\"\\n.byte 1\\n.text");'


def compile_c(source, output, *options):
    subprocess.run(["cc", "-x", "c", "-", "-o", output, *map(str, options)], input=source, text=True, check=True)


class ImageWithCuda(unittest.TestCase):
    """On a program that is linked to the driver and has a section as nvcc's, and on a small library in NCCL's place."""

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.directory.cleanup)
        cls.path = Path(cls.directory.name)
        cls.stubs, cls.bin, cls.nccl = (cls.path / name for name in ("stubs", "bin", "nccl"))
        for folder in (cls.stubs, cls.bin, cls.nccl):
            folder.mkdir()
        compile_c("int cuInit(unsigned flags) { return (int)flags; }", cls.stubs / "libcuda.so", "-shared", "-Wl,-soname,libcuda.so.1")
        compile_c(_CUDA_SECTION + "int cuInit(unsigned); int main(void) { return cuInit(0); }", cls.bin / "quern-serve", "-L", cls.stubs,
                  "-lcuda")
        compile_c("double cos(double); double f(double x) { return cos(x); }", cls.nccl / nccl.LIBRARY, "-shared", "-fPIC",
                  f"-Wl,-soname,{nccl.LIBRARY}", "-lm")
        (cls.nccl / nccl.LICENSE).write_text("may be copied")

    def build(self):
        return images.build(images.SERVE_CUDA, self.bin, self.path, self.nccl)

    def test_it_holds_nccl_with_its_licence_and_what_both_need_but_no_driver(self):
        with tarfile.open(self.build().archive) as archive:
            def blob(digest):
                return archive.extractfile("blobs/sha256/" + digest.removeprefix("sha256:"))
            (descriptor,) = json.load(archive.extractfile("index.json"))["manifests"]
            manifest = json.load(blob(descriptor["digest"]))
            held = set()
            for layer in manifest["layers"]:
                with tarfile.open(fileobj=blob(layer["digest"])) as files:
                    held |= set(files.getnames())
            config = json.load(blob(manifest["config"]["digest"]))["config"]
        libraries = "usr/lib/x86_64-linux-gnu"
        self.assertLessEqual({"usr/bin/quern-serve", f"{libraries}/libnccl.so.2", f"{libraries}/libm.so.6", f"{libraries}/libc.so.6",
                              "usr/share/doc/nccl/License.txt"}, held)
        self.assertEqual([path for path in held if "libcuda" in path or "nvidia" in path], [])
        self.assertIn("NVIDIA_REQUIRE_CUDA=cuda>=13.0", config["Env"])
        self.assertFalse([one for one in config["Env"] if one.startswith("NVIDIA_VISIBLE_DEVICES")])
        self.assertEqual(config["Labels"]["dev.quern.nvidia-driver.least"], "580")

    def test_the_driver_is_refused_under_each_of_its_names(self):
        for name in ("libcuda.so", "libcuda.so.1", "libcuda.so.580.82.07", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1"):
            for entry in (oci.Entry(f"usr/lib/{name}", data=b""), oci.Entry("usr/lib/other", link=name),
                          oci.Entry("usr/lib/other.so", source=self.stubs / name)):
                with self.assertRaisesRegex(console.Failure, "belongs to the NVIDIA driver"):
                    images.refuse_driver([[], [entry]])
        for name in ("libcudart.so.13", "libnccl.so.2", "libcurl.so.4", "libcudasomething.so"):
            images.refuse_driver([[oci.Entry(f"usr/lib/{name}", data=b"")]])

    def test_a_stub_that_was_laid_beside_nccl_does_not_get_in(self):
        """As a toolkit's lib64/stubs would: the program then finds it, and it would be packed."""
        plain = images.Definition("serve", ("quern-serve",), "x")
        with tempfile.TemporaryDirectory() as scratch:
            linked = Path(scratch) / "quern-serve"
            compile_c("int cuInit(unsigned); int main(void) { return cuInit(0); }", linked, "-L", self.stubs, "-lcuda",
                      f"-Wl,-rpath,{scratch}")
            with self.assertRaisesRegex(console.Failure, "needs libcuda.so.1, which is not on this machine"):
                images.build(plain, Path(scratch), self.path)
            (Path(scratch) / "libcuda.so.1").symlink_to(self.stubs / "libcuda.so")
            with self.assertRaisesRegex(console.Failure, "libcuda.so.1 would be in the image"):
                images.build(plain, Path(scratch), self.path)

    def test_a_program_without_code_for_gpus_is_refused_with_the_command_that_builds_it(self):
        images.require_gpu_code(images.SERVE_CUDA, self.bin)
        with tempfile.TemporaryDirectory() as scratch:
            with self.assertRaisesRegex(console.Failure, "does not exist; build it first: .*-DQUERN_CUDA=ON"):
                images.require_gpu_code(images.SERVE_CUDA, Path(scratch))
            compile_c("int main(void) { return 0; }", Path(scratch) / "quern-serve")
            with self.assertRaisesRegex(console.Failure, "holds no code for GPUs; .*-DQUERN_CUDA=ON"):
                images.require_gpu_code(images.SERVE_CUDA, Path(scratch))


class Containerfiles(unittest.TestCase):
    def test_they_say_what_the_archives_say(self):
        for definition in images.ALL:
            text = (REPO / "hack" / "containerfiles" / f"{definition.name}.Containerfile").read_text().rpartition("\nFROM scratch\n")[2]
            said, config = {}, images.config(definition)
            for keyword, rest in re.findall(r"^([A-Z]+) (.+)$", text, re.M):
                said.setdefault(keyword, []).extend(shlex.split(rest))
            self.assertEqual(said["ENV"], config["Env"], definition.name)
            self.assertEqual(said["USER"], [config["User"]])
            self.assertEqual(said["STOPSIGNAL"], [config["StopSignal"]])
            self.assertEqual(json.loads(re.search(r"^ENTRYPOINT (.+)$", text, re.M)[1]), config["Entrypoint"])
            labels = [f"{key}={value}" for key, value in config["Labels"].items() if key.startswith("dev.quern.")]
            self.assertEqual(said.get("LABEL", []), labels)


if __name__ == "__main__":
    unittest.main()
