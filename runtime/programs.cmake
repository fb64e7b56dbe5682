quern_program(quern-eval SOURCES eval_main.cc eval_bench.cc eval_limits.cc eval_scores.cc DEPS base kernels model tokenizer CLI11::CLI11 nlohmann_json::nlohmann_json)
quern_program(quern-serve SOURCES serve_main.cc command_line.cc serve_options.cc serve_bench.cc serve_bench_run.cc serve_bench_sampling.cc DEPS base formats tokenizer model engine http metrics server CLI11::CLI11 nlohmann_json::nlohmann_json)
quern_program(quern-bench SOURCES bench_main.cc bench_options.cc command_line.cc DEPS base bench_client units CLI11::CLI11)
target_compile_definitions(quern-bench PRIVATE QUERN_VERSION="${PROJECT_VERSION}")
