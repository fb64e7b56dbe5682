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
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()

find_program(QUERN_MOLD mold)
if(QUERN_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

foreach(flag -Wall -Wextra -Wno-missing-field-initializers -fno-omit-frame-pointer -ffile-prefix-map=${CMAKE_SOURCE_DIR}=.)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:${flag}>)  # nvcc has its own: QuernCuda.cmake
endforeach()
if(QUERN_SANITIZE)
  add_compile_options(-fsanitize=${QUERN_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${QUERN_SANITIZE})
endif()
if(QUERN_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES Clang OR NOT QUERN_SANITIZE)
    message(FATAL_ERROR "QUERN_FUZZ needs clang and QUERN_SANITIZE: use cmake --preset asan")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# With QUERN_UNITY=N, up to N files of a target are compiled as one (the presets asan and tsan: most of the compiler's time goes
# into the same headers again and again). Names of a file's own (in anonymous namespaces, aliases) must then differ within a target.
set(QUERN_UNITY 0 CACHE STRING "how many source files of a library or a test are compiled as one at most; 0: each by itself")

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
    _quern_unite_later(quern_${name})
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
  _quern_member(programs ${name})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${deps})
endfunction()

# quern_test(unit_formats SOURCES a_test.cc DEPS formats LABELS unit [threaded] [OPTIMISED])
# One binary per folder; every TEST is a ctest entry of its own. "threaded" ones also run under TSan: their ctest label
# is threaded alone, as gtest_discover_tests turns a list of labels into one label and a stray property.
# Tests run in the root of the checkout, where QUERN_TESTS_DIR ("tests") leads: an absolute path in the compiler's
# arguments would keep ccache from finding, in a fresh clone, what another one compiled.
# With sanitizers the tests' own files are not optimised, which halves their compile time; OPTIMISED ones are: those that
# compute a lot themselves, or whose subject lies in header templates, of which the linker keeps the test's copy.
# `ninja tests_unit` (tests_threaded, tests_contract, ...) builds all tests with that label.
function(quern_test name)
  cmake_parse_arguments(A "OPTIMISED" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  _quern_names(deps ${A_DEPS})
  add_executable(${name} ${A_SOURCES})
  if(QUERN_SANITIZE AND NOT A_OPTIMISED)
    target_compile_options(${name} PRIVATE -O0)
  endif()
  if(QUERN_FUZZ) # no fuzzer is made of them: a fifth of their compile time
    target_compile_options(${name} PRIVATE -fno-sanitize=fuzzer-no-link)
  endif()
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_definitions(${name} PRIVATE QUERN_TESTS_DIR="tests")
  target_link_libraries(${name} PRIVATE ${deps} GTest::gtest GTest::gmock GTest::gtest_main)
  _quern_unite_later(${name})
  if(NOT A_LABELS)
    set(A_LABELS unit)
  endif()
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 120)
  endif()
  foreach(label ${A_LABELS})
    _quern_member(tests_${label} ${name})
  endforeach()
  list(GET A_LABELS -1 ctest_label)
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
                       PROPERTIES LABELS ${ctest_label} TIMEOUT ${A_TIMEOUT})
endfunction()

# quern_fuzzer(fuzz_gguf SOURCES gguf_fuzz.cc DEPS formats CORPUS corpus/gguf)
# With QUERN_FUZZ a libFuzzer binary; ctest runs it over the seed corpus and for a bounded number of runs.
# Files that a fuzzer once broke on go into the corpus, so that they stay mended.
set(QUERN_FUZZ_SECONDS 30 CACHE STRING "how long each fuzzer runs at most; above 60, it uses all of it")
function(quern_fuzzer name)
  cmake_parse_arguments(A "" "RUNS;CORPUS" "SOURCES;DEPS" ${ARGN})
  if(NOT QUERN_FUZZ)
    return()
  endif()
  _quern_names(deps ${A_DEPS})
  if(NOT A_RUNS)
    set(A_RUNS 20000)
  endif()
  if(QUERN_FUZZ_SECONDS GREATER 60)
    set(A_RUNS -1)  # as long as the time lasts
  endif()
  add_executable(${name} ${A_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${deps})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/corpus/${name})
  math(EXPR timeout "${QUERN_FUZZ_SECONDS} + 120")
  add_test(NAME ${name} COMMAND ${name} -runs=${A_RUNS} -max_total_time=${QUERN_FUZZ_SECONDS} -timeout=60 -rss_limit_mb=2048
           ${CMAKE_BINARY_DIR}/corpus/${name} ${CMAKE_CURRENT_SOURCE_DIR}/${A_CORPUS})
  set_tests_properties(${name} PROPERTIES LABELS fuzz TIMEOUT ${timeout})
  _quern_member(fuzzers ${name})
endfunction()

# quern_pytest(serve_api PATHS tests/integration/serve LABELS integration TIMEOUT 600)
# One ctest entry that runs pytest with the Python of hack/setup, in the root of the checkout. The programs' directory is
# in QUERN_BIN. hack/test counts the tests inside, from <build>/junit/NAME.xml.
set(QUERN_PYTHON "" CACHE FILEPATH "the Python with the packages of hack/requirements.txt (default: hack/setup's)")
function(quern_pytest name)
  cmake_parse_arguments(A "" "TIMEOUT" "PATHS;LABELS;ENVIRONMENT" ${ARGN})
  set(python ${QUERN_PYTHON})
  if(NOT python)
    execute_process(COMMAND ${CMAKE_SOURCE_DIR}/hack/setup --print python OUTPUT_VARIABLE python
                    OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  endif()
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 300)
  endif()
  add_test(NAME pytest.${name}
           COMMAND ${python} -B -m pytest -p no:cacheprovider --tb=short -v
                   --junitxml=${CMAKE_BINARY_DIR}/junit/${name}.xml ${A_PATHS}
           WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(pytest.${name} PROPERTIES LABELS "${A_LABELS}" TIMEOUT ${A_TIMEOUT}
                       ENVIRONMENT "QUERN_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY};PYTHONUNBUFFERED=1;${A_ENVIRONMENT}")
endfunction()

# Replaces the sources of `target` by files that include them, at the end of the directory, when all their properties are known.
# CMake's own UNITY_BUILD writes absolute paths, for which ccache would not find in a fresh clone what another one compiled.
function(_quern_unite_later target)
  if(QUERN_UNITY GREATER 1)
    cmake_language(EVAL CODE "cmake_language(DEFER CALL _quern_unite ${target})")
  endif()
endfunction()

# Files with options of their own stay apart, and those that the build generates. The others are shared out evenly.
function(_quern_unite target)
  get_target_property(sources ${target} SOURCES)
  set(apart)
  set(together)
  foreach(source ${sources})
    cmake_path(ABSOLUTE_PATH source NORMALIZE OUTPUT_VARIABLE path)
    set(own FALSE)
    foreach(property COMPILE_OPTIONS COMPILE_DEFINITIONS COMPILE_FLAGS INCLUDE_DIRECTORIES)
      get_source_file_property(value ${source} ${property})
      if(value)
        set(own TRUE)
      endif()
    endforeach()
    cmake_path(IS_PREFIX CMAKE_BINARY_DIR ${path} generated)
    if(own OR generated)
      list(APPEND apart ${source})
    else()
      cmake_path(RELATIVE_PATH path BASE_DIRECTORY ${CMAKE_SOURCE_DIR})
      list(APPEND together ${path})
    endif()
  endforeach()
  list(LENGTH together count)
  math(EXPR units "(${count} + ${QUERN_UNITY} - 1) / ${QUERN_UNITY}")
  set(unit 0)
  while(unit LESS units)
    math(EXPR first "${count} * ${unit} / ${units}")
    math(EXPR length "${count} * (${unit} + 1) / ${units} - ${first}")
    list(SUBLIST together ${first} ${length} members)
    list(TRANSFORM members REPLACE "(.+)" "#include \"\\1\"\n")
    list(JOIN members "" text)
    set(file ${CMAKE_CURRENT_BINARY_DIR}/${target}_${unit}.cc)
    file(CONFIGURE OUTPUT ${file} CONTENT "${text}" @ONLY)
    list(APPEND apart ${file})
    math(EXPR unit "${unit} + 1")
  endwhile()
  set_target_properties(${target} PROPERTIES SOURCES "${apart}")
  # GCC takes what is included for a header, of which two files could have two different types.
  target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
endfunction()

# Makes `target` a member of the group target `group`, which builds all its members.
function(_quern_member group target)
  if(NOT TARGET ${group})
    add_custom_target(${group})
  endif()
  add_dependencies(${group} ${target})
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
