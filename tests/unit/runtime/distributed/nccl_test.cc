// NCCL as far as it goes on a machine without a GPU: to an error that says what is missing.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "runtime/distributed/device_communicator.h"
#include "runtime/distributed/nccl_library.h"
#include "tests/unit/runtime/distributed/gloo_ranks.h"

namespace quern {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// The library that hack/images put into the cache; "" where there is none.
std::string CachedNccl() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value != nullptr ? value : "");
  };
  std::filesystem::path cache = variable("QUERN_CACHE");
  if (cache.empty()) cache = variable("HOME") + "/.cache/quern";
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(cache, error)) {
    const auto library = entry.path() / "libnccl.so.2";
    if (entry.path().filename().string().starts_with("nccl-") && std::filesystem::exists(library)) {
      return library.string();
    }
  }
  return "";
}

bool HasDriver() {
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY);
  if (driver != nullptr) dlclose(driver);
  return driver != nullptr;
}

TEST(Nccl, ALibraryThatIsNotThereIsAnErrorThatSaysWhatToInstall) {
  const auto opened = NcclLibrary::Open("libnccl-that-nobody-has.so.2");
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(opened.error().message,
              AllOf(HasSubstr("a model over several GPUs needs NCCL, which cannot be opened: "
                              "libnccl-that-nobody-has.so.2"),
                    HasSubstr("libnccl2"), HasSubstr("image of quern-serve for GPUs")));
}

TEST(Nccl, AnotherLibraryIsNotTakenForIt) {
  const auto opened = NcclLibrary::Open("libm.so.6");
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(opened.error().message, HasSubstr("libm.so.6 has no ncclGetVersion: that is not "
                                                "NCCL, or too old"));
}

TEST(Nccl, TheRealLibraryHasWhatIsUsedAndSaysItsErrors) {
  const std::string library = CachedNccl();
  if (library.empty()) GTEST_SKIP() << "no NCCL in the cache: hack/images --cuda fetches it";
  const auto nccl = NcclLibrary::Open(library.c_str());
  ASSERT_TRUE(nccl.ok()) << nccl.error().message;
  EXPECT_GE(nccl->version, 22700);  // the first for CUDA 13
  EXPECT_LT(nccl->version, 30000);
  EXPECT_THAT(nccl->Describe(nccl::kInvalidArgument, nullptr), HasSubstr("invalid argument"));
  EXPECT_THAT(nccl->Describe(nccl::kRemoteError, nullptr), HasSubstr("remote"));
  EXPECT_THAT(nccl->Describe(nccl::kInvalidUsage, nullptr), HasSubstr("invalid usage"));
}

class NcclRanks : public GlooTest {
 protected:
  static std::string Make(Communicator& group, const std::string& library) {
    const auto made = MakeNcclCommunicator(group, {.library = library.c_str()});
    if (made.ok()) return "it was made";
    // The group is whole, whoever failed.
    if (const Status after = group.Barrier(); !after.ok()) return after.error().message;
    return made.error().message;
  }
};

TEST_F(NcclRanks, WithoutADriverAllRanksSaySo) {
  const std::string library = CachedNccl();
  if (library.empty()) GTEST_SKIP() << "no NCCL in the cache: hack/images --cuda fetches it";
  if (HasDriver()) GTEST_SKIP() << "this machine has an NVIDIA driver";
  const auto results = Run(2, [&](Communicator& group) { return Make(group, library); });
  for (size_t rank = 0; rank < 2; ++rank) {
    EXPECT_THAT(results[rank], AllOf(HasSubstr("NCCL cannot "), HasSubstr("CUDA"),
                                     HasSubstr("it needs an NVIDIA driver and a GPU")));
    EXPECT_THAT(results[rank], ::testing::Not(HasSubstr("NCCL_DEBUG")));
  }
}

TEST_F(NcclRanks, ARankWithoutTheLibraryIsAnErrorOfAll) {
  const std::string library = CachedNccl();
  if (library.empty()) GTEST_SKIP() << "no NCCL in the cache: hack/images --cuda fetches it";
  const auto results = Run(3, [&](Communicator& group) {
    return Make(group, group.rank() == 1 ? "libnone.so" : library);
  });
  const std::string why =
      "a model over several GPUs needs NCCL, which cannot be opened: libnone.so: ";
  EXPECT_THAT(results[0], StartsWith("rank 1 of 3: " + why));
  EXPECT_THAT(results[1], StartsWith(why));
  EXPECT_THAT(results[2], StartsWith("rank 1 of 3: " + why));
}

}  // namespace
}  // namespace quern
