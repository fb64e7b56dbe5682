// quern-eval: what a model computes, without a server around it: logits, perplexity, speed.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <new>

#include "runtime/eval.h"

namespace quern {

Result<LoadedModel> LoadModel(const CommonOptions& options, bool with_tokenizer) {
  LoadedModel loaded;
  QUERN_ASSIGN(auto file, GgufFile::Open(options.model));
  if (with_tokenizer) {
    QUERN_ASSIGN(loaded.tokenizer, Tokenizer::FromGguf(*file));
  }
  QUERN_ASSIGN(loaded.model, LoadModelOn(options.device, std::move(file), options.load));
  return loaded;
}

namespace {

constexpr int kExitBadInput = 2;

void AddCommon(CLI::App* command, CommonOptions* common) {
  command->add_option("model", common->model, "GGUF file")->required();
  command
      ->add_option("--threads", common->load.threads, "threads; 0: as many as the CPU quota allows")
      ->check(CLI::Range(0, 128))
      ->capture_default_str();
  const auto read_device = [common](const std::string& text) {
    const auto device = ParseDevice(text);
    if (!device) throw CLI::ValidationError(device.error().message);
    common->device = *device;
  };
  command
      ->add_option_function<std::string>("--device", read_device,
                                         "auto (a GPU where there is one), cpu, cuda, or cuda:1 "
                                         "for a GPU by its number [auto]")
      ->type_name("DEVICE");
  const auto read_activations = [common](const std::string& text) {
    const auto type = ParseActivations(text);
    if (!type) throw CLI::ValidationError(type.error().message);
    common->load.activations = *type;
  };
  command
      ->add_option_function<std::string>("--activations", read_activations,
                                         "what a GPU keeps activations in: f16 or bf16 [bf16]")
      ->type_name("TYPE");
  const auto read_dtype = [common](const std::string& text) {
    const auto dtype = ParseKvDtype(text);
    if (!dtype) throw CLI::ValidationError(dtype.error().message);
    common->load.kv_dtype = *dtype;
  };
  CLI::Option* dtype =
      command
          ->add_option_function<std::string>("--kv-dtype", read_dtype,
                                             "what the KV cache stores: f16, f32 (exact), int8, or "
                                             "int4 (K in int8, V in int4) [f16]")
          ->type_name("DTYPE");
  const auto all_float32 = [common] {
    common->load.float32_weights = true;
    common->load.kv_dtype = KvDtype::kF32;
  };
  command
      ->add_flag_callback("--float32", all_float32,
                          "everything in float32, weights expanded to four bytes each: slow; to "
                          "tell the formats' errors from mistakes")
      ->excludes(dtype);
  command->add_flag("--json", common->as_json, "print JSON on one line");
}

int Main(int argc, char** argv) {
  CLI::App app(
      "Looks at what a model computes: logits, perplexity, speed.\n"
      "The same forward pass as quern-serve, with no server around it.");
  app.footer(
      "Examples:\n"
      "  quern-eval logits model.gguf --tokens ids.txt --top 5\n"
      "  quern-eval perplexity model.gguf wiki.test.raw\n"
      "  quern-eval bench model.gguf --batch 1,8 --prompt 128 --generate 64 --json\n"
      "  quern-eval limits\n"
      "Exit codes: 0 done, 2 something is wrong with a file or an option (one line says what).\n"
      "QUERN_CPU_ISA=scalar|avx2|avx512 in the environment asks for an instruction set.");
  app.require_subcommand(1);
  CommonOptions common;
  LogitsOptions logits;
  BenchOptions bench;
  LimitsOptions limits;
  std::string text_file;

  auto* logits_command =
      app.add_subcommand("logits", "the most likely next tokens at each position");
  AddCommon(logits_command, &common);
  logits_command->add_option("--tokens", logits.tokens_file, "file of token ids, one sequence")
      ->required();
  logits_command->add_option("--top", logits.top, "how many tokens to list")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  logits_command->add_option("--positions", logits.positions, "only these positions, from 0")
      ->delimiter(',');

  auto* perplexity_command =
      app.add_subcommand("perplexity", "how well the model predicts a text (lower is better)");
  AddCommon(perplexity_command, &common);
  perplexity_command->add_option("file", text_file, "text, UTF-8")->required();

  auto* bench_command =
      app.add_subcommand("bench", "tokens per second of prompts and of generation");
  AddCommon(bench_command, &common);
  bench_command->add_option("--batch", bench.batches, "sequences at once, a run for each")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  bench_command->add_option("--prompt", bench.prompt, "tokens of each prompt")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  bench_command->add_option("--generate", bench.generate, "tokens to generate for each")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  bench_command
      ->add_option("--top-k", bench.top_k,
                   "generate by drawing from the so many likeliest tokens, 1: greedily; 0: random "
                   "tokens, with all logits read")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 20));

  auto* limits_command = app.add_subcommand(
      "limits", "what this machine reads from memory and computes at most, with no model");
  limits_command
      ->add_option("--threads", limits.threads, "threads; 0: as many as the CPU quota allows")
      ->check(CLI::Range(0, 128))
      ->capture_default_str();
  limits_command->add_option("--mib", limits.mib, "MiB to read: much more than the caches hold")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  limits_command->add_option("--runs", limits.runs, "of each: the best is the limit")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  limits_command->add_flag("--json", limits.as_json, "print JSON on one line");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitBadInput;
  }
  const Status status = logits_command->parsed()       ? RunLogits(common, logits)
                        : perplexity_command->parsed() ? RunPerplexity(common, text_file)
                        : limits_command->parsed()     ? RunLimits(limits)
                                                       : RunBench(common, bench);
  if (status) return 0;
  std::fprintf(stderr, "quern-eval: %s\n", status.error().message.c_str());
  return kExitBadInput;
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  try {
    return quern::Main(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "quern-eval: not enough memory\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "quern-eval: %s\n", error.what());
  }
  return quern::kExitBadInput;
}
