# quern::llguidance: the static library and the header that hack/setup builds from hack/constraints.
execute_process(COMMAND ${CMAKE_SOURCE_DIR}/hack/setup --print llguidance OUTPUT_VARIABLE _llguidance
                OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
if(NOT EXISTS ${_llguidance}/.complete)
  message(FATAL_ERROR "the library of runtime/constraints has not been built (${_llguidance} is not there). Run: hack/setup")
endif()
add_library(quern::llguidance STATIC IMPORTED GLOBAL)
set_target_properties(quern::llguidance PROPERTIES
  IMPORTED_LOCATION ${_llguidance}/lib/libquern_llguidance.a
  INTERFACE_INCLUDE_DIRECTORIES ${_llguidance}/include
  INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};m")
# Another version lies elsewhere: look again when the pin changes.
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
  ${CMAKE_SOURCE_DIR}/hack/constraints/Cargo.toml ${CMAKE_SOURCE_DIR}/hack/constraints/Cargo.lock
  ${CMAKE_SOURCE_DIR}/hack/constraints/lib.rs)
