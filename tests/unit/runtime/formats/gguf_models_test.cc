// The two real models that the project's tests use; skipped where they have not been fetched.
#include <gtest/gtest.h>

#include <string>

#include "runtime/formats/gguf.h"
#include "tests/support/models.h"

namespace quern {
namespace {

using test_support::ModelPath;

TEST(GgufModels, SmolLM2IsReadWhole) {
  QUERN_NEED_MODEL("SmolLM2-135M-Instruct.Q4_1.gguf");
  const std::string path = ModelPath("SmolLM2-135M-Instruct.Q4_1.gguf");
  auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ((*file)->FindString("general.architecture"), "llama");
  EXPECT_EQ((*file)->FindStringArray("tokenizer.ggml.tokens")->size(), 49152u);
  const GgufTensor* embedding = (*file)->FindTensor("token_embd.weight");
  ASSERT_TRUE(embedding);
  EXPECT_EQ(embedding->type, GgmlType::kQ8_0);
  EXPECT_EQ(embedding->dims, (std::vector<uint64_t>{576, 49152}));
  EXPECT_EQ(embedding->data.size(), 576u * 49152 / 32 * 34);
}

TEST(GgufModels, Gemma3IsReadWhole) {
  QUERN_NEED_MODEL("gemma-3-270m.Q4_K_M.gguf");
  const std::string path = ModelPath("gemma-3-270m.Q4_K_M.gguf");
  auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ((*file)->FindString("general.architecture"), "gemma3");
  EXPECT_EQ((*file)->FindStringArray("tokenizer.ggml.tokens")->size(), 262144u);
  EXPECT_EQ((*file)->FindFloatArray("tokenizer.ggml.scores")->size(), 262144u);
  uint64_t bytes = 0;
  for (const GgufTensor& tensor : (*file)->tensors()) bytes += tensor.data.size();
  EXPECT_LE(bytes, (*file)->size_bytes());
  EXPECT_GT(bytes, (*file)->size_bytes() * 9 / 10) << "nearly all of the file is weights";
}

}  // namespace
}  // namespace quern
