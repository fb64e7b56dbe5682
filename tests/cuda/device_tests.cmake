# The device tests, <name>_device_test: plain programs that run on a GPU (tests/cuda) and on the emulator
# (tests/unit/kernels/simt). Their other files, and their own kernels:
set(QUERN_DEVICE_TESTS attention elementwise gemm gguf grouped moe ptx rows sampling w4a16)
set(QUERN_DEVICE_TEST_SOURCES_attention append_kv_cases.cc attention_cases.cc rotate_heads_cases.cc)
set(QUERN_DEVICE_TEST_SOURCES_elementwise elementwise_gate_checks.cc elementwise_norm_checks.cc elementwise_quantize_checks.cc)
set(QUERN_DEVICE_TEST_SOURCES_gguf gguf_gather_checks.cc)
set(QUERN_DEVICE_TEST_SOURCES_sampling sampling_verify_checks.cc)
set(QUERN_DEVICE_TEST_KERNELS_ptx ptx_kernels.cu)
set(QUERN_DEVICE_TEST_KERNELS_sampling sampling_kernels.cu)
