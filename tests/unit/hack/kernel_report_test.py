"""What hack/kernel-report reads out of cuobjdump's text, occupancy against figures of NVIDIA's calculator, and budgets."""

import json
import sys
import tempfile
import unittest
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "hack" / "lib"))
from quern_dev import console  # noqa: E402
from quern_dev.kernel_report import budgets, cubin, model_tables, roofline  # noqa: E402
from quern_dev.kernel_report.occupancy import occupancy  # noqa: E402

USAGE = """
Fatbin elf code:
================
arch = sm_80
Resource usage:
 Common:
  GLOBAL:0
 Function _Z1kv:
  REG:80 STACK:16 SHARED:1040 LOCAL:0 CONSTANT[2]:8 CONSTANT[0]:456 TEXTURE:0
arch = sm_90a
 Function _Z1kv:
  REG:64 STACK:0 SHARED:16 LOCAL:0 CONSTANT[0]:456 TEXTURE:0
"""
SASS = """
arch = sm_80
		Function : _Z1kv
	.headerflags	@"EF_CUDA_SM80"
        /*0000*/                   LDG.E.128.CONSTANT R4, [R2.64] ;                   /* 0x000 */
                                                                                      /* 0x001 */
        /*0010*/              @!P0 LDG.E.U16 R8, [R2.64+0x10] ;                       /* 0x000 */
        /*0020*/                   HMMA.16816.F32 R4, R4, R8, R12 ;                   /* 0x000 */
        /*0030*/              @P1  STL.64 [R1], R74 ;                                 /* 0x000 */
        /*0040*/                   LDL.LU.64 R74, [R1] ;                              /* 0x000 */
        /*0050*/             @!UP0 NOP ;                                              /* 0x000 */
arch = sm_90a
		Function : _Z1kv
        /*0000*/                   LDS.128 R4, [R2] ;                                 /* 0x000 */
"""


class Cubin(unittest.TestCase):
    def test_resource_usage_is_read_for_each_architecture(self):
        usage = cubin.parse_usage(USAGE)
        self.assertEqual(set(usage), {("_Z1kv", "sm_80"), ("_Z1kv", "sm_90a")})
        self.assertEqual((usage["_Z1kv", "sm_80"]["REG"], usage["_Z1kv", "sm_80"]["STACK"]), (80, 16))
        self.assertEqual(usage["_Z1kv", "sm_90a"]["SHARED"], 16)

    def test_instructions_are_counted_by_class_whatever_their_predicate(self):
        sass = cubin.parse_sass(SASS)
        self.assertEqual(sass["_Z1kv", "sm_80"], Counter({"all": 5, "LDG": 2, "spill": 2, "LDG.128": 1, "MMA": 1}))
        self.assertEqual(sass["_Z1kv", "sm_90a"], Counter({"all": 1, "LDS": 1}))

    def test_names_lose_their_namespace_and_arguments_and_keep_what_tells_them_apart(self):
        self.assertEqual(cubin.short_name("void quern::kernels::W4A16Kernel<__half, (quern::kernels::W4Format)0, 2>(quern::kernels::W4A16Launch)"),
                         "W4A16Kernel<__half, (W4Format)0, 2>")
        self.assertEqual(cubin.short_name("quern::kernels::Plain(int, float*)"), "Plain")


class Occupancy(unittest.TestCase):
    def test_it_is_what_the_limits_allow_and_says_which_one(self):
        for args, blocks, share, limiter in (
                (("sm_80", 32, 256, 0), 8, 1.0, "registers"),  # all 64 warps, 32 registers each
                (("sm_80", 16, 256, 0), 8, 1.0, "threads"),
                (("sm_80", 16, 32, 0), 32, 0.5, "blocks"),
                (("sm_80", 128, 256, 0), 2, 0.25, "registers"),
                (("sm_80", 214, 256, 0), 1, 0.125, "registers"),
                (("sm_86", 64, 256, 48 * 1024), 2, 1 / 3, "shared memory"),
                (("sm_90a", 64, 256, 113 * 1024), 2, 0.25, "shared memory"),  # each block takes 1 KiB more
                (("sm_90a", 64, 256, 114 * 1024), 1, 0.125, "shared memory"),
                (("sm_86", 64, 256, 100 * 1024), 0, 0.0, "shared memory"),
        ):
            found = occupancy(*args)
            self.assertEqual((found.blocks, found.limiter), (blocks, limiter), args)
            self.assertAlmostEqual(found.warps_share, share, msg=str(args))


def compiled(**changes):
    one = cubin.Compiled("Kernel<1>", "sm_80", 100, 0, 16, Counter({"all": 10, "MMA": 2}))
    for name, value in changes.items():
        setattr(one, name, value)
    return one


LAUNCH = {"op": "op", "shape": "8x8", "batch": 4, "kernel": "Kernel<1>", "bulk_bytes": 100, "bulk_load_bytes": 110,
          "written_bytes": 50, "store_bytes": 60, "shared_wavefronts": 12, "least_wavefronts": 10}


class ReplicaProfiles(unittest.TestCase):
    def test_the_modelled_ones_are_what_the_roofline_gives(self):
        for name, model, gpus in (("h100-8b", "Llama-3-8B", 1), ("h100-70b", "Llama-3-70B", 4)):
            with self.subTest(name):
                profile = json.loads((ROOT / "operator/simulation/profiles" / f"{name}.json").read_text())
                self.assertEqual(profile["kind"], "modelled")
                model = next(m for m in roofline.MODELS if m.name == model)
                gpu = roofline.find_gpu("H100")
                bandwidth, rate = roofline.BANDWIDTH_SHARE * gpu.bandwidth * gpus, roofline.RATE_SHARE * gpu.bf16 * gpus
                body = model.attention_weights() + model.feed_forward_weights(1)
                weights = body + model.head_weights()
                between = 2 * model.layers * roofline.ALL_REDUCE_SECONDS if gpus > 1 else 0
                want = {"step": 2 * weights / bandwidth + model.layers * roofline.KERNELS_PER_LAYER * roofline.KERNEL_SECONDS + between,
                        "decode_sequence": 2 * weights / rate, "prefill_token": 2 * body / rate,
                        "attended_token": 4.0 * model.heads * model.head_dim * model.layers / rate,
                        "loaded_token": 2.0 * model.kv_values() / bandwidth}
                for term, seconds in want.items():
                    self.assertAlmostEqual(profile["step_seconds"][term] / seconds, 1, places=3, msg=term)
                held = (0.9 * gpus * gpu.memory - 2 * weights) / (2 * model.kv_values())
                self.assertAlmostEqual(profile["kv_tokens"] / held, 1, places=2)


class Budgets(unittest.TestCase):
    def over(self, budget, kernel=None, launch=LAUNCH):
        return budgets.over([kernel or compiled()], [launch], {"Kernel": budget} if budget is not None else {})

    def test_what_keeps_to_its_budget_is_not_named(self):
        self.assertEqual(self.over({"registers": 100, "needs": ["MMA"], "load_ratio": 1.1, "store_ratio": 1.2, "wavefront_ratio": 1.2}), [])
        untold = dict(LAUNCH, bulk_bytes=0, written_bytes=0, least_wavefronts=0, shared_wavefronts=0)
        self.assertEqual(self.over({"load_ratio": 1, "store_ratio": 1, "wavefront_ratio": 1}, launch=untold), [])

    def test_each_budget_can_be_gone_over_and_says_what_by(self):
        for budget, kernel, part in (
                (None, None, "has no budget"),
                ({"registers": 99}, None, "100 registers; 99 may be"),
                ({}, compiled(instructions=Counter({"spill": 4})), "4 instructions spill; 0 may"),
                ({"needs": ["LDSM"]}, None, "no LDSM"),
                ({"load_ratio": 1.05}, None, "op 8x8 batch 4: Kernel reads what weighs most 1.100 times; 1.05 may be"),
                ({"store_ratio": 1.1}, None, "writes 1.200 times its results"),
                ({"wavefront_ratio": 1.1}, None, "takes 1.200 times"),
        ):
            wrong = self.over(budget, kernel)
            self.assertEqual(len(wrong), 1, budget)
            self.assertIn(part, wrong[0])

    def test_the_longest_name_counts(self):
        found = {"Kernel": {"registers": 1}, "Kernel<1": {"registers": 200}, "Other": {}}
        self.assertEqual(budgets.over([compiled()], [LAUNCH], found), [])
        self.assertEqual(len(budgets.over([compiled(kernel="Kernel<2>")], [], found)), 1)

    def test_files_with_a_mistake_are_refused(self):
        for text, part in (("{", "budgets.json"), ('{"K": {"register": 1}}', "unknown budget 'register'"),
                           ('{"K": {"needs": ["FMA4"]}}', "needs 'FMA4'")):
            with tempfile.TemporaryDirectory(prefix="quern-budgets-") as folder:
                (Path(folder) / "family").mkdir()
                (Path(folder) / "family" / "budgets.json").write_text(text)
                with self.assertRaises(console.Failure) as failed:
                    budgets.load(Path(folder))
                self.assertIn(part, str(failed.exception))

    def test_the_trees_own_files_can_be_read(self):
        found = budgets.load(ROOT / "kernels" / "cuda")
        self.assertIn("W4A16Kernel", found)
        json.dumps(found)


class Model(unittest.TestCase):
    def test_weights_are_those_that_the_models_are_named_for(self):
        for model, billions, active in zip(roofline.MODELS, (8.0, 70.6, 30.5, 20.9, 116.8, 671), (8.0, 70.6, 3.3, 3.6, 5.1, 37)):
            embedding = model.vocabulary * model.hidden
            self.assertAlmostEqual((model.weights() + embedding) / 1e9, billions, delta=0.01 * billions, msg=model.name)
            self.assertAlmostEqual(model.active_weights() / 1e9, active, delta=0.12 * active, msg=model.name)

    def test_a_product_is_bound_by_memory_at_batch_1_and_by_tensor_cores_at_large_ones(self):
        gpu = roofline.Gpu("round", bandwidth=1e12, bf16=1e14, fp8=2e14, memory=1e11)
        limit, modelled = roofline.product(gpu, "bf16", 1000, 1000, 1)
        self.assertAlmostEqual(limit, 2_004_000 / 1e12)
        self.assertAlmostEqual(modelled, 2_004_000 / 0.92e12 + 2.5e-6)
        self.assertAlmostEqual(roofline.product(gpu, "fp8", 1000, 1000, 10**6)[0], 2e12 / 2e14)
        self.assertAlmostEqual(roofline.product(gpu, "w4", 1000, 1000, 10**6)[0], 2e12 / 1e14)

    def test_experts_are_touched_as_chance_has_it(self):
        model = roofline.MODELS[2]
        self.assertAlmostEqual(model.touched_experts(1), 8)
        self.assertAlmostEqual(model.touched_experts(2), 8 + 120 * 8 / 128)
        self.assertLess(model.touched_experts(100), 128)

    def test_speculation_gives_a_geometric_sum(self):
        self.assertAlmostEqual(roofline.accepted(4, 0.75), 1 + 0.75 + 0.75**2 + 0.75**3 + 0.75**4)

    def test_the_page_has_what_the_model_says(self):
        page = (ROOT / "docs" / "kernel-model.md").read_text()
        for name, table in model_tables.TABLES.items():
            self.assertIn(f"<!-- {name} -->\n{table()}\n<!-- end -->", page, "hack/kernel-report --model prints it anew")


if __name__ == "__main__":
    unittest.main()
