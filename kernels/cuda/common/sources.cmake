list(APPEND _cuda_hosts cuda/common/device.cc cuda/common/matmul.cc)
