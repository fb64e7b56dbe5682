"""Plants each kind of fault in a small tree and expects hack/lint-layers to find it, and only it."""

import contextlib
import importlib.machinery
import importlib.util
import io
import shutil
import tempfile
import unittest
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]


def _load_lint():
    loader = importlib.machinery.SourceFileLoader("lint_layers", str(REPO / "hack" / "lint-layers"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("lint_layers", loader))
    import sys
    sys.modules["lint_layers"] = module  # dataclasses look their module up
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


lint = _load_lint()

_HEADERS = ("runtime/base/result.h", "runtime/base/log.h", "runtime/scheduler/scheduler.h", "runtime/model/model.h",
            "runtime/engine/engine.h", "operator/api/endpoint.h", "operator/kube/client.h", "operator/controller/queue.h",
            "kernels/include/quern/kernels/dot.h")


class LintLayers(unittest.TestCase):
    def setUp(self):
        self.root = Path(tempfile.mkdtemp(prefix="quern-lint-test-"))
        self.addCleanup(shutil.rmtree, self.root)
        (self.root / "hack").mkdir()
        shutil.copy(REPO / "hack" / "layers.toml", self.root / "hack" / "layers.toml")
        for header in _HEADERS:
            self.write(header, "#pragma once\n")

    def write(self, path: str, text: str):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def run_lint(self, *arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = lint.main(["--root", str(self.root), *arguments])
        return code, out.getvalue() + err.getvalue()

    def expect_error(self, path, text, *said):
        self.write(path, text)
        code, output = self.run_lint()
        self.assertEqual(code, 1, output)
        errors = [line for line in output.splitlines() if ": error: " in line]
        self.assertEqual(len(errors), 1, output)
        self.assertTrue(errors[0].startswith(path + ":"), errors[0])
        for piece in said:
            self.assertIn(piece, errors[0])

    def expect_clean(self, path, text):
        self.write(path, text)
        code, output = self.run_lint()
        self.assertEqual(code, 0, output)

    def test_a_tree_that_keeps_the_rules_is_clean(self):
        self.expect_clean("runtime/engine/core.cc", '#include "runtime/engine/engine.h"\n\n#include <unistd.h>\n\n'
                          '#include <vector>\n\n#include <fmt/format.h>\n\n#include "runtime/scheduler/scheduler.h"\n')

    def test_an_upward_include_in_the_runtime_is_found(self):
        self.expect_error("runtime/scheduler/a.cc", '#include <vector>\n#include "runtime/engine/engine.h"\n',
                          "a.cc:2:", "runtime/scheduler may not include", "of runtime/engine", "may include: runtime/base")

    def test_scheduler_and_model_never_meet(self):
        self.expect_error("runtime/scheduler/a.cc", '#include "runtime/model/model.h"\n', "of runtime/model")

    def test_operator_may_not_include_the_runtime(self):
        self.expect_error("operator/reconcilers/a.cc", '#include "runtime/engine/engine.h"\n', "of runtime/engine")

    def test_operator_may_include_runtime_base(self):
        self.expect_clean("operator/reconcilers/a.cc", '#include "runtime/base/result.h"\n')

    def test_runtime_may_not_include_the_operator(self):
        self.expect_error("runtime/server/a.cc", '#include "operator/api/endpoint.h"\n', "of operator/api")

    def test_main_files_wire_their_own_side_only(self):
        self.expect_clean("runtime/serve_main.cc", '#include <CLI/CLI.hpp>\n#include "runtime/engine/engine.h"\n')
        self.expect_error("operator/main.cc", '#include "runtime/engine/engine.h"\n', "operator may not include")

    def test_kernels_include_nothing_of_the_project_but_themselves(self):
        self.expect_clean("kernels/cpu/dot.cc", '#include "quern/kernels/dot.h"\n#include <immintrin.h>\n')
        self.expect_error("kernels/cpu/dot2.cc", '#include "runtime/base/result.h"\n', "kernels may not include")

    def test_a_third_party_in_the_wrong_room_is_found(self):
        for path, header in (("runtime/engine/a.cc", "boost/beast.hpp"), ("operator/reconcilers/a.cc", "cpprest/json.h"),
                             ("runtime/server/a.cc", "prometheus/registry.h"), ("runtime/model/a.cc", "nlohmann/json.hpp"),
                             ("runtime/base/a.cc", "CLI/CLI.hpp"), ("runtime/model/b.cc", "immintrin.h")):
            with self.subTest(path=path):
                self.expect_error(path, f"#include <{header}>\n", "may not include", header)
                (self.root / path).unlink()

    def test_a_third_party_in_its_room_is_fine(self):
        self.expect_clean("operator/kube/rest.cc", "#include <cpprest/http_client.h>\n#include <nlohmann/json.hpp>\n")
        self.expect_clean("runtime/http/session.cc", "#include <boost/beast.hpp>\n#include <boost/asio/ip/tcp.hpp>\n")

    def test_an_unknown_third_party_is_found_everywhere(self):
        self.expect_error("runtime/http/a.cc", "#include <absl/strings/str_cat.h>\n", "belongs to no third party")

    def test_an_include_that_is_not_written_from_the_root_is_found(self):
        self.write("runtime/base/near.h", "#pragma once\n")
        self.expect_error("runtime/base/a.cc", '#include "near.h"\n', "does not exist from the root")

    def test_a_project_header_in_angle_brackets_is_found(self):
        self.expect_error("runtime/model/a.cc", "#include <runtime/base/result.h>\n", "in quotes")

    def test_a_pure_room_that_logs_or_reads_a_clock_is_found(self):
        for text, said in (('#include <spdlog/spdlog.h>\n', "spdlog"), ('#include "runtime/base/log.h"\n', "log.h"),
                           ("auto t = std::chrono::steady_clock::now();\n", "_clock::now"), ("#include <fstream>\n", "fstream")):
            with self.subTest(text=text):
                self.expect_error("runtime/scheduler/a.cc", text, "is pure", said)

    def test_a_comment_in_a_pure_room_may_speak_of_the_clock(self):
        self.expect_clean("operator/autoscaling/a.cc", "// never steady_clock::now() here\n")

    def test_a_folder_outside_the_table_is_found(self):
        self.expect_error("runtime/surprise/a.cc", "int x;\n", "no room of hack/layers.toml")

    def test_a_file_over_the_limit_is_found_and_a_long_one_is_warned_of(self):
        self.expect_error("runtime/base/long.cc", "int x;\n" * 601, "601 lines")
        self.write("runtime/base/long.cc", "int x;\n" * 401)
        code, output = self.run_lint()
        self.assertEqual(code, 0)
        self.assertIn("long.cc:401: warning", output)
        self.assertNotIn("warning:", self.run_lint("--quiet")[1])

    def test_a_path_of_one_machine_is_found_in_any_text_file(self):
        for path, text in (("docs/a.md", "see /ro" + "ot/notes\n"), ("hack/run", "#!/bin/sh\ncd /wor" + "k/main\n"),
                           ("runtime/base/a.cc", '// from /tm' + 'p/quern/x\n')):
            with self.subTest(path=path):
                self.expect_error(path, text, "path of one machine")
                (self.root / path).unlink()

    def test_a_control_character_in_a_source_is_found(self):
        self.expect_error("runtime/base/a.cc", "int x;\nchar c = '\0';\n", "a.cc:2:", "control character")

    def test_test_folders_may_look_at_their_own_side_only(self):
        self.expect_clean("tests/contract/a_test.cc", '#include "operator/api/endpoint.h"\n#include <gtest/gtest.h>\n')
        self.expect_error("tests/unit/operator/api/a_test.cc", '#include "runtime/engine/engine.h"\n', "of runtime/engine")

    def test_a_broken_table_is_exit_code_2_with_its_mistake(self):
        self.write("hack/layers.toml", (REPO / "hack" / "layers.toml").read_text().replace(
            'may = ["runtime/base", "runtime/kv_cache"]', 'may = ["runtime/basement"]'))
        code, output = self.run_lint()
        self.assertEqual(code, 2)
        self.assertIn("runtime/basement", output)


if __name__ == "__main__":
    unittest.main()
