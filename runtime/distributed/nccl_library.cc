#include "runtime/distributed/nccl_library.h"

#include <dlfcn.h>

namespace quern {
namespace {

constexpr int kLeastVersion = 21800;
constexpr char kWhatToDo[] =
    "install NVIDIA's libnccl2 (or its Python package nvidia-nccl-cu13, whose folder goes into "
    "LD_LIBRARY_PATH), or take the image of quern-serve for GPUs, which has it";

template <typename F>
Status Find(void* library, const char* name, const char* symbol, F** function) {
  *function = reinterpret_cast<F*>(dlsym(library, symbol));
  if (*function != nullptr) return {};
  return MakeError(ErrorCode::kUnsupported, "{} has no {}: that is not NCCL, or too old; {}", name,
                   symbol, kWhatToDo);
}

std::string VersionText(int version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

}  // namespace

Result<NcclLibrary> NcclLibrary::Open(const char* name) {
  void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    return MakeError(ErrorCode::kUnsupported,
                     "a model over several GPUs needs NCCL, which cannot be opened: {}; {}",
                     why != nullptr ? why : name, kWhatToDo);
  }
  NcclLibrary nccl;
  QUERN_TRY(Find(library, name, "ncclGetVersion", &nccl.get_version_));
  QUERN_TRY(Find(library, name, "ncclGetErrorString", &nccl.get_error_string_));
  QUERN_TRY(Find(library, name, "ncclGetLastError", &nccl.get_last_error_));
  QUERN_TRY(Find(library, name, "ncclGetUniqueId", &nccl.get_unique_id));
  QUERN_TRY(Find(library, name, "ncclCommInitRankConfig", &nccl.comm_init_rank_config));
  QUERN_TRY(Find(library, name, "ncclCommAbort", &nccl.comm_abort));
  QUERN_TRY(Find(library, name, "ncclCommGetAsyncError", &nccl.comm_get_async_error));
  QUERN_TRY(Find(library, name, "ncclAllReduce", &nccl.all_reduce));
  QUERN_TRY(Find(library, name, "ncclAllGather", &nccl.all_gather));
  if (nccl.get_version_(&nccl.version) != nccl::kSuccess || nccl.version < kLeastVersion) {
    return MakeError(ErrorCode::kUnsupported, "{} is NCCL {}: {} or later is needed; {}", name,
                     VersionText(nccl.version), VersionText(kLeastVersion), kWhatToDo);
  }
  return nccl;
}

std::string NcclLibrary::Describe(nccl::Outcome outcome, nccl::Communicator communicator) const {
  std::string text = get_error_string_(outcome);
  // "... (run with NCCL_DEBUG=INFO for details)": what follows is the detail.
  if (const size_t hint = text.find(" (run with"); hint != std::string::npos) text.resize(hint);
  const char* last = get_last_error_(communicator);
  if (last != nullptr && *last != '\0') text += std::string(": ") + last;
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace quern
