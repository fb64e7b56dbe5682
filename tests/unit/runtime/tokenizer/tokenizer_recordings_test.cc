// The tokenizers of the two real models give what llama.cpp gave on the corpus
// (tests/recordings/tokenizer, with the script that recorded it).
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/tokenizer/tokenizer.h"
#include "tests/support/models.h"

namespace quern {
namespace {

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new()) { EVP_DigestInit_ex(context_, EVP_sha256(), nullptr); }
  ~Sha256() { EVP_MD_CTX_free(context_); }
  void Add(const void* data, size_t size) { EVP_DigestUpdate(context_, data, size); }
  std::string Hex() {
    unsigned char digest[32];
    EVP_DigestFinal_ex(context_, digest, nullptr);
    std::string hex;
    for (const unsigned char byte : digest) hex += fmt::format("{:02x}", byte);
    return hex;
  }

 private:
  EVP_MD_CTX* context_;
};

std::string DigestOf(const std::vector<TokenId>& ids) {
  Sha256 sha;
  sha.Add(ids.data(), ids.size() * sizeof(TokenId));
  return sha.Hex();
}

struct Model {
  const char* recording;
  const char* file;
  // What a text must hold for it not to come back whole from its tokens.
  std::vector<std::string> lossy;
  // Tokens that llama.cpp takes for an end of generation (and so for control tokens) by their text
  // alone. Here, as in Hugging Face's library, Gemma's "</s>" is what it is: the HTML tag.
  std::vector<TokenId> not_an_end_here;
};

class TokenizerRecordings : public ::testing::TestWithParam<Model> {
 protected:
  void SetUp() override {
    QUERN_NEED_MODEL(GetParam().file);
    const std::string path = test_support::ModelPath(GetParam().file);
    std::ifstream in(std::string(QUERN_TESTS_DIR "/recordings/tokenizer/") + GetParam().recording);
    ASSERT_TRUE(in.good()) << "run from the root of the checkout";
    recorded_ = nlohmann::json::parse(in);
    auto file = GgufFile::Open(path);
    ASSERT_TRUE(file.ok()) << file.error().message;
    auto tokenizer = Tokenizer::FromGguf(**file);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
    tokenizer_ = std::move(tokenizer).value();
  }

  std::vector<TokenId> Encode(const std::string& text, EncodeOptions options) {
    auto ids = tokenizer_->Encode(text, options);
    EXPECT_TRUE(ids.ok()) << (ids.ok() ? "" : ids.error().message);
    return ids.ok() ? *ids : std::vector<TokenId>();
  }

  nlohmann::json recorded_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_P(TokenizerRecordings, EveryTextOfTheCorpusGivesTheSameTokens) {
  ASSERT_GT(recorded_["texts"].size(), 500u);
  for (const auto& entry : recorded_["texts"]) {
    const std::string name = entry[0];
    const std::string text = entry[1];
    const EncodeOptions plain{.add_special = false, .parse_special = false};
    const EncodeOptions special{.add_special = false, .parse_special = true};
    const bool has_no_end =
        GetParam().not_an_end_here.empty() || text.find("</s>") == std::string::npos;
    EXPECT_EQ(Encode(text, plain), entry[has_no_end ? 2 : 3].get<std::vector<TokenId>>())
        << name << ": " << text;
    EXPECT_EQ(Encode(text, special), entry[3].get<std::vector<TokenId>>())
        << name << ", special: " << text;
  }
}

TEST_P(TokenizerRecordings, LongTextsGiveTheSameTokens) {
  for (const auto& entry : recorded_["large"]) {
    std::string text;
    for (int i = 0; i < entry[2].get<int>(); ++i) text += entry[1].get<std::string>();
    const auto ids = Encode(text, {.add_special = false, .parse_special = false});
    EXPECT_EQ(ids.size(), entry[3].get<size_t>()) << entry[0];
    EXPECT_EQ(DigestOf(ids), entry[4].get<std::string>()) << entry[0];
  }
}

TEST_P(TokenizerRecordings, BosIsAddedAsTheModelAsks) {
  for (const auto& entry : recorded_["with_special"]) {
    EXPECT_EQ(Encode(entry[0], {.add_special = true}), entry[1].get<std::vector<TokenId>>())
        << entry[0];
  }
}

TEST_P(TokenizerRecordings, EveryTokenStandsForTheSameBytes) {
  ASSERT_EQ(tokenizer_->vocab_size(), recorded_["vocab_size"].get<int>());
  Sha256 sha;
  for (TokenId id = 0; id < tokenizer_->vocab_size(); ++id) {
    const std::string bytes = tokenizer_->TokenBytes(id, /*render_special=*/true);
    const auto length = static_cast<uint32_t>(bytes.size());
    sha.Add(&length, 4);
    sha.Add(bytes.data(), bytes.size());
  }
  EXPECT_EQ(sha.Hex(), recorded_["pieces_sha256"].get<std::string>());
}

TEST_P(TokenizerRecordings, TheSameTokensEndGeneration) {
  std::vector<TokenId> ends;
  for (TokenId id = 0; id < tokenizer_->vocab_size(); ++id) {
    const auto& others = GetParam().not_an_end_here;
    const bool is_other = std::find(others.begin(), others.end(), id) != others.end();
    EXPECT_FALSE(is_other && tokenizer_->IsEndOfGeneration(id));
    if (is_other || tokenizer_->IsEndOfGeneration(id)) ends.push_back(id);
  }
  EXPECT_EQ(ends, recorded_["end_of_generation"].get<std::vector<TokenId>>());
}

TEST_P(TokenizerRecordings, TextsComeBackFromTheirTokens) {
  int lossy = 0;
  for (const auto& entry : recorded_["texts"]) {
    const std::string text = entry[1];
    const auto ids = Encode(text, {.add_special = false, .parse_special = true});
    const std::string decoded = tokenizer_->Decode(ids, /*render_special=*/true);
    std::string streamed;
    IncrementalDecoder decoder(*tokenizer_);
    for (const TokenId id : ids) streamed += decoder.Push(id);
    streamed += decoder.Finish();
    EXPECT_EQ(streamed, tokenizer_->Decode(ids)) << entry[0];
    const bool is_lossy =
        std::any_of(GetParam().lossy.begin(), GetParam().lossy.end(),
                    [&](const std::string& part) { return text.find(part) != std::string::npos; });
    EXPECT_EQ(decoded != text, is_lossy) << entry[0] << ": " << text << " -> " << decoded;
    lossy += is_lossy;
  }
  EXPECT_LT(lossy, 40);
}

INSTANTIATE_TEST_SUITE_P(
    Models, TokenizerRecordings,
    ::testing::Values(Model{"smollm2.json",
                            "SmolLM2-135M-Instruct.Q4_1.gguf",
                            // Bytes that its vocabulary has no token for.
                            {"\x04", "\x06", "\x13", "\x14", "\x16", "\x1d", "\xf1", "\xf2"},
                            {}},
                      Model{"gemma3.json",
                            "gemma-3-270m.Q4_K_M.gguf",
                            {"\u2581"},  // which stands for the space
                            {212}}),
    [](const auto& info) { return std::string(info.param.recording).substr(0, 6); });

}  // namespace
}  // namespace quern
