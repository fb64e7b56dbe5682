list(APPEND _cuda_hosts cuda/attention/append_kv.cc)
list(APPEND _cuda_kernels cuda/attention/append_kv_f16.cu cuda/attention/append_kv_bf16.cu)
