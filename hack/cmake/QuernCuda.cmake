# CUDA for -DQUERN_CUDA=ON: finds the toolkit (CMAKE_CUDA_COMPILER, else what hack/setup says: an installed one of 13.x, else the
# one of hack/setup --cuda), and turns QUERN_CUDA_ARCHITECTURES into nvcc's options.

if(QUERN_SANITIZE)
  message(FATAL_ERROR "QUERN_SANITIZE is for the CPU's code: leave QUERN_CUDA off with it")
endif()

# 90a and 100a: with Hopper's and Blackwell's own instructions, for exactly these. 90-virtual: PTX for what comes later.
set(QUERN_CUDA_ARCHITECTURES "80;86;89;90a;90-virtual;100a;120" CACHE STRING
    "compute capabilities to build for, e.g. \"80;90a\", -virtual for PTX; or native: that of this machine's GPU")

if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  execute_process(COMMAND ${CMAKE_SOURCE_DIR}/hack/setup --print cuda OUTPUT_VARIABLE _cuda_root
                  OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  if(NOT EXISTS ${_cuda_root}/bin/nvcc)
    message(FATAL_ERROR "QUERN_CUDA needs the CUDA compiler: run hack/setup --cuda, or set CUDA_HOME to a toolkit of 13.x")
  endif()
  set(CMAKE_CUDA_COMPILER ${_cuda_root}/bin/nvcc)
endif()

# The options are our own: CMake 3.24 does not know all of these names.
set(CMAKE_CUDA_ARCHITECTURES OFF)
set(_native ${QUERN_CUDA_ARCHITECTURES})
if(_native STREQUAL "native")
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader OUTPUT_VARIABLE _native
                  OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE _failed)
  if(_failed)
    message(FATAL_ERROR "QUERN_CUDA_ARCHITECTURES=native, but nvidia-smi finds no GPU here; name compute capabilities, e.g. 80;90a")
  endif()
  string(REGEX REPLACE "[\r\n]+" ";" _native "${_native}")
  list(REMOVE_DUPLICATES _native)
  list(TRANSFORM _native REPLACE "\\." "")
  list(TRANSFORM _native REPLACE "^(90|100)$" "\\1a")
endif()
set(QUERN_CUDA_FLAGS "")
foreach(arch ${_native})
  if(NOT arch MATCHES "^[0-9]+[af]?(-virtual)?$")
    message(FATAL_ERROR "QUERN_CUDA_ARCHITECTURES: \"${arch}\" is no compute capability; 80, 90a or 90-virtual are")
  endif()
  string(REGEX MATCH "^[0-9]+" number ${arch})
  if(number LESS 80)
    message(FATAL_ERROR "QUERN_CUDA_ARCHITECTURES: ${arch} is too old; the kernels need compute capability 8.0 (80) or later")
  elseif(arch MATCHES "-virtual$" AND number LESS 90)
    # On a later GPU such PTX would run without its waits for the grid before it, which are compiled in from 9.0 on.
    message(FATAL_ERROR "QUERN_CUDA_ARCHITECTURES: PTX is possible from 90-virtual on, not ${arch}")
  elseif(arch MATCHES "^(.*)-virtual$")
    list(APPEND QUERN_CUDA_FLAGS "-gencode=arch=compute_${CMAKE_MATCH_1},code=compute_${CMAKE_MATCH_1}")
  else()
    list(APPEND QUERN_CUDA_FLAGS "-gencode=arch=compute_${arch},code=sm_${arch}")
  endif()
endforeach()
list(APPEND QUERN_CUDA_FLAGS -lineinfo -Xcompiler=-Wall,-Wextra,-fno-omit-frame-pointer
     -Xcompiler=-ffile-prefix-map=${CMAKE_SOURCE_DIR}=.)

enable_language(CUDA)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know it
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
endif()
find_package(CUDAToolkit REQUIRED QUIET)
if(CUDAToolkit_VERSION_MAJOR LESS 13)
  message(FATAL_ERROR "QUERN_CUDA needs CUDA 13.x; ${CMAKE_CUDA_COMPILER} is of ${CUDAToolkit_VERSION}")
endif()
