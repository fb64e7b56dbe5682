quern_program(quern-operator
  SOURCES operator_main.cc operator_options.cc simulate_command.cc
  DEPS reconcilers simulation CLI11::CLI11)
target_compile_definitions(quern-operator PRIVATE QUERN_VERSION="${PROJECT_VERSION}")
