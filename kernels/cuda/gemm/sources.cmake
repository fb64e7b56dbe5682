list(APPEND _cuda_hosts cuda/gemm/gemm.cc cuda/gemm/w8a8.cc)
foreach(weights dense int8 e4m3)
  list(APPEND _cuda_kernels cuda/gemm/gemm_${weights}.cu)
endforeach()
