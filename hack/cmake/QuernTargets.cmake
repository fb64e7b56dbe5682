# One CMake target per folder: quern_library(formats SOURCES ... DEPS base) makes `quern_formats`.
# Flags that every target gets, and the three ways to declare one.

find_program(QUERN_CCACHE ccache)
if(QUERN_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(_cache_dir $ENV{CCACHE_DIR})
  if(NOT _cache_dir)
    set(_cache_dir $ENV{HOME}/.cache/quern/ccache)
  endif()
  # Paths relative to the checkout, so that a fresh clone hits what another one compiled.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_DIR=${_cache_dir}
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 CCACHE_MAXSIZE=5G ${QUERN_CCACHE})
endif()

find_program(QUERN_MOLD mold)
if(QUERN_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

add_compile_options(-Wall -Wextra -Wno-missing-field-initializers -fno-omit-frame-pointer
                    -ffile-prefix-map=${CMAKE_SOURCE_DIR}=.)
if(QUERN_SANITIZE)
  add_compile_options(-fsanitize=${QUERN_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${QUERN_SANITIZE})
endif()
if(QUERN_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES Clang)
    message(FATAL_ERROR "QUERN_FUZZ needs clang: configure with -DCMAKE_CXX_COMPILER=clang++-16")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined)
  add_link_options(-fsanitize=address,undefined)
endif()

# quern_library(NAME [SOURCES file...] [DEPS target...] [PRIVATE_DEPS target...])
# DEPS named without a prefix are the project's own folders ("base" is quern_base); anything with
# "::" or already existing under another name is taken as it is.
function(quern_library name)
  cmake_parse_arguments(A "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  _quern_names(deps ${A_DEPS})
  _quern_names(private_deps ${A_PRIVATE_DEPS})
  if(A_SOURCES)
    add_library(quern_${name} STATIC ${A_SOURCES})
    target_include_directories(quern_${name} PUBLIC ${CMAKE_SOURCE_DIR}
                               ${CMAKE_SOURCE_DIR}/kernels/include)
    target_link_libraries(quern_${name} PUBLIC ${deps} PRIVATE ${private_deps})
  else()
    add_library(quern_${name} INTERFACE)
    target_include_directories(quern_${name} INTERFACE ${CMAKE_SOURCE_DIR}
                               ${CMAKE_SOURCE_DIR}/kernels/include)
    target_link_libraries(quern_${name} INTERFACE ${deps})
  endif()
endfunction()

# quern_program(quern-serve SOURCES serve_main.cc DEPS server)
function(quern_program name)
  cmake_parse_arguments(A "" "" "SOURCES;DEPS" ${ARGN})
  _quern_names(deps ${A_DEPS})
  add_executable(${name} ${A_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${deps})
endfunction()

# quern_test(unit_formats SOURCES a_test.cc DEPS formats LABELS unit [threaded])
# One binary per folder; every TEST is a ctest entry of its own. "threaded" ones also run under TSan.
function(quern_test name)
  cmake_parse_arguments(A "" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  _quern_names(deps ${A_DEPS})
  add_executable(${name} ${A_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_definitions(${name} PRIVATE QUERN_TESTS_DIR="${CMAKE_SOURCE_DIR}/tests")
  target_link_libraries(${name} PRIVATE ${deps} GTest::gtest GTest::gmock GTest::gtest_main)
  if(NOT A_LABELS)
    set(A_LABELS unit)
  endif()
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 120)
  endif()
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST
                       PROPERTIES LABELS "${A_LABELS}" TIMEOUT ${A_TIMEOUT})
endfunction()

# quern_fuzzer(fuzz_gguf SOURCES gguf_fuzz.cc DEPS formats CORPUS corpus/gguf)
# With QUERN_FUZZ a libFuzzer binary; ctest runs it over the seed corpus and for a bounded number of runs.
# Files that a fuzzer once broke on go into the corpus, so that they stay mended.
function(quern_fuzzer name)
  cmake_parse_arguments(A "" "RUNS;CORPUS" "SOURCES;DEPS" ${ARGN})
  if(NOT QUERN_FUZZ)
    return()
  endif()
  _quern_names(deps ${A_DEPS})
  if(NOT A_RUNS)
    set(A_RUNS 20000)
  endif()
  add_executable(${name} ${A_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${deps})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/corpus/${name})
  add_test(NAME ${name} COMMAND ${name} -runs=${A_RUNS} -max_total_time=60 -rss_limit_mb=2048
           ${CMAKE_BINARY_DIR}/corpus/${name} ${CMAKE_CURRENT_SOURCE_DIR}/${A_CORPUS})
  set_tests_properties(${name} PROPERTIES LABELS fuzz TIMEOUT 180)
endfunction()

function(_quern_names out)
  set(result)
  foreach(dep ${ARGN})
    if(dep MATCHES "::" OR dep MATCHES "^(-|/)" OR TARGET ${dep} OR dep MATCHES "^quern_")
      list(APPEND result ${dep})
    else()
      list(APPEND result quern_${dep})
    endif()
  endforeach()
  set(${out} ${result} PARENT_SCOPE)
endfunction()
