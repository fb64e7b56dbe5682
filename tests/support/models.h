#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace quern::test_support {

// Where hack/setup --models puts a model: $QUERN_MODELS, else $QUERN_CACHE/models, else
// ~/.cache/quern/models.
inline std::string ModelPath(const std::string& file) {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value != nullptr ? value : "");
  };
  if (const auto models = variable("QUERN_MODELS"); !models.empty()) return models + "/" + file;
  if (const auto cache = variable("QUERN_CACHE"); !cache.empty()) return cache + "/models/" + file;
  return variable("HOME") + "/.cache/quern/models/" + file;
}

// Ends the test that says it when the model is not there: as skipped, or, with QUERN_REQUIRE_MODELS
// set (hack/test sets it), as failed. In the test's body or in SetUp.
#define QUERN_NEED_MODEL(file)                                                       \
  do {                                                                               \
    const std::string quern_path = ::quern::test_support::ModelPath(file);           \
    if (!std::filesystem::exists(quern_path)) {                                      \
      const char* quern_require = std::getenv("QUERN_REQUIRE_MODELS");               \
      if (quern_require != nullptr && *quern_require != '\0') {                      \
        FAIL() << quern_path << " is not there: hack/setup --models fetches it";     \
      }                                                                              \
      GTEST_SKIP() << quern_path << " is not there: hack/setup --models fetches it"; \
    }                                                                                \
  } while (false)

}  // namespace quern::test_support
