# The SIMT emulator for -DQUERN_SIMT=ON: CUDA files are compiled by g++ and run on the CPU, checked (docs/simt.md).

if(QUERN_CUDA OR QUERN_SANITIZE)
  message(FATAL_ERROR "QUERN_SIMT builds the CUDA kernels for the CPU, and uses the compiler's hooks of ThreadSanitizer for its own checks: "
                      "give it a build directory without QUERN_CUDA and QUERN_SANITIZE (cmake --preset simt)")
endif()
if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  message(FATAL_ERROR "QUERN_SIMT needs g++: which accesses are instrumented, and how, is that compiler's")
endif()
find_package(Boost 1.74 REQUIRED COMPONENTS context)

# Every access that may leave the thread's own stack calls __tsan_read4 and its like, every index of an array of known size
# is checked: kernels/simt/hooks.cc has these functions. No libtsan is linked. Without SRA a vector's load stays one access
# (else uint4 becomes four of 4 bytes); without motion out of loops and the like no load is made that the code does not make; -g: lines in errors.
set(QUERN_SIMT_FLAGS -O2 -g -fsanitize=thread -fsanitize=bounds-strict --param=tsan-distinguish-volatile=1
    --param=tsan-instrument-func-entry-exit=0 -fno-tree-sra -fno-ipa-sra -fno-tree-loop-im -fno-hoist-adjacent-loads
    -fno-extern-tls-init -fno-strict-aliasing -Wno-unknown-pragmas)

# quern_simt_kernels(target file.cu...): adds CUDA files to a target, as C++ that runs on the emulator. Its other files, and
# those of targets that link it, see the emulator's <cuda_runtime.h>.
function(quern_simt_kernels target)
  target_sources(${target} PRIVATE ${ARGN})
  set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "${QUERN_SIMT_FLAGS}")
  target_include_directories(${target} BEFORE PUBLIC ${CMAKE_SOURCE_DIR}/kernels/simt/overlay)
  target_link_libraries(${target} PUBLIC quern_kernels_simt)
endfunction()

# quern_simt_opens_nccl(program): that may open the emulated NCCL, which finds the emulator in it.
function(quern_simt_opens_nccl target)
  set_target_properties(${target} PROPERTIES ENABLE_EXPORTS ON)
  add_dependencies(${target} emulated_nccl)
endfunction()
