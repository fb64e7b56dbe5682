#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/model/parallel_model.h"
#include "tests/unit/runtime/distributed/gloo_ranks.h"
#include "tests/unit/runtime/model/tiny_model.h"

namespace quern::testing {

inline constexpr int32_t kBlockTokens = 4;
inline constexpr int32_t kBlocksOfEach = 24;
inline constexpr int kSequences = 4;

// Of a family and its formats.
struct SplitCase {
  const char* name;
  TinyModel model;
  KvDtype kv = KvDtype::kF16;
  int threads = 1;
};

inline TinyModel Tiny(const char* architecture, uint32_t heads, uint32_t kv_heads, GgmlType type) {
  TinyModel tiny;
  tiny.architecture = architecture;
  if (tiny.architecture == "gemma3") tiny.layers = 7;  // with a global layer
  tiny.heads = heads;
  tiny.kv_heads = kv_heads;
  tiny.vocab = 53;  // not even
  tiny.type = type;
  if (type == GgmlType::kQ8_0) {
    tiny.head_dim = 32;
    tiny.ffn_width = tiny.expert_ffn_width = 5 * 32;  // of which ranks have different numbers
  } else if (type == GgmlType::kQ4_K) {
    tiny.width = 256;
    tiny.head_dim = 256;
    tiny.ffn_width = 5 * 256;
  }
  return tiny;
}

// Tests of models that are split over processes.
class ParallelModelTest : public GlooTest {
 protected:
  static constexpr KvLayout kLayout{kBlockTokens, kSequences* kBlocksOfEach};

  static LoadPart Part(const TinyModel& tiny, Communicator& group, int threads, KvDtype kv) {
    return [&group, threads, kv, tiny]() -> Result<std::unique_ptr<Model>> {
      QUERN_ASSIGN(auto backend, MakeCpuBackend(threads, &group));
      ModelOptions options{.threads = threads, .kv_dtype = kv};
      options.group = &group;
      return tiny.Load(std::move(backend), options);
    };
  }

  // Rank 0 does `lead` with the model, the others follow. "" where nothing is lost or said.
  static std::string Play(Communicator& group, const LoadPart& part,
                          const std::function<std::string(Model&)>& lead) {
    if (group.rank() > 0) {
      const Status followed = FollowParallelModel(group, part);
      return followed ? "" : followed.error().message;
    }
    std::string said;
    {
      auto model = LoadParallelModel(group, part, [&](const Error& e) { said = e.message; });
      if (!model) return model.error().message;
      if (const Status kv = (*model)->AllocateKv(kLayout); !kv) return kv.error().message;
      const std::string wrong = lead(**model);
      if (!wrong.empty()) said = wrong;
    }
    const Status ended = EndFollowers(group);
    return ended || !said.empty() ? said : ended.error().message;
  }

  std::vector<std::string> Lead(int size, const SplitCase& of,
                                const std::function<std::string(Model&)>& lead) {
    return Run(size, [&](Communicator& group) {
      return Play(group, Part(of.model, group, of.threads, of.kv), lead);
    });
  }

  void ExpectNothingSaid(const std::vector<std::string>& results, std::string_view where) {
    for (size_t rank = 0; rank < results.size(); ++rank) {
      EXPECT_EQ(results[rank], "") << "rank " << rank << ", " << where;
    }
  }
};

}  // namespace quern::testing
