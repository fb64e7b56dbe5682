// Words are cut as Hugging Face's library cuts them (tests/recordings/tokenizer/splits.py).
#include "runtime/tokenizer/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

namespace quern {
namespace {

std::string Lengths(const PreTokenizer& pre_tokenizer, std::string_view text) {
  std::vector<uint32_t> ends;
  const Status status = pre_tokenizer.Split(text, &ends);
  EXPECT_TRUE(status) << status.error().message;
  std::string lengths;
  uint32_t begin = 0;
  for (const uint32_t end : ends) {
    lengths += (lengths.empty() ? "" : " ") + std::to_string(end - begin);
    begin = end;
  }
  return lengths;
}

TEST(PreTokenizer, CutsTheCorpusAsHuggingFacesLibraryDoes) {
  std::ifstream in(QUERN_TESTS_DIR "/recordings/tokenizer/splits.json");
  ASSERT_TRUE(in.good()) << "run from the root of the checkout";
  const auto recorded = nlohmann::json::parse(in);
  ASSERT_GT(recorded["texts"].size(), 500u);
  std::map<std::string, std::unique_ptr<PreTokenizer>> families;
  for (const std::string name : recorded["pre"]) {
    auto found = PreTokenizer::Find(name);
    ASSERT_TRUE(found) << found.error().message;
    families[name] = std::move(found).value();
  }
  for (const auto& entry : recorded["texts"]) {
    const std::string text = entry[0];
    for (const auto& [lengths, names] : entry[1].items()) {
      for (const std::string name : names) {
        EXPECT_EQ(Lengths(*families.at(name), text), lengths) << name << ": " << entry[0];
      }
    }
  }
}

// Whoever adds one also records it.
TEST(PreTokenizer, EveryNameThatIsKnownWasCompared) {
  std::ifstream in(QUERN_TESTS_DIR "/recordings/tokenizer/splits.json");
  const auto recorded = nlohmann::json::parse(in);
  std::vector<std::string> names = recorded["pre"];
  names.insert(names.end(), {"llama3", "llama-v3"});  // other names of llama-bpe
  EXPECT_THAT(PreTokenizer::KnownNames(), ::testing::UnorderedElementsAreArray(names));
}

TEST(PreTokenizer, AnUnknownNameIsRefusedWithThoseThatAreKnown) {
  const auto found = PreTokenizer::Find("falcon");
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(found.error().message, ::testing::HasSubstr("'falcon'"));
  EXPECT_THAT(found.error().message, ::testing::HasSubstr("supported are smollm, "));
}

}  // namespace
}  // namespace quern
