#include "kernels/simt/runtime/pinned.h"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <map>

#include "kernels/simt/program.h"

namespace quern::simt {
namespace {

struct Pinned {
  size_t bytes;
  size_t mapped;
};
std::map<uintptr_t, Pinned>& All() {
  static auto* all = new std::map<uintptr_t, Pinned>;
  return *all;
}

uintptr_t PageBytes() {
  static const auto bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

// Pages that are guarded. The signal's handler reads them without a lock, so they never move.
struct Guard {
  std::atomic<const Task*> task;  // null: free
  std::atomic<uint8_t*> begin;
  std::atomic<uint8_t*> end;
  std::atomic<uintptr_t> touched_at;  // where in the code
  std::atomic<bool> wrote;

  void Protect(int protection) const {
    mprotect(begin.load(), static_cast<size_t>(end.load() - begin.load()), protection);
  }
};
constexpr size_t kGuards = 256;
std::array<Guard, kGuards> guards;
struct sigaction before;

// The page fault's error code on x86: whether it was a write.
bool WasWrite(const ucontext_t& context) {
#if defined(__x86_64__)
  return (context.uc_mcontext.gregs[REG_ERR] & 2) != 0;
#else
  static_cast<void>(context);
  return false;
#endif
}

uintptr_t CodeAddress(const ucontext_t& context) {
#if defined(__x86_64__)
  return static_cast<uintptr_t>(context.uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
  return context.uc_mcontext.pc;
#else
  return 0;
#endif
}

// Lets the host go on: the error is told when it waits for the copy.
void OnSignal(int signal, siginfo_t* info, void* context) {
  const auto* address = static_cast<const uint8_t*>(info->si_addr);
  for (Guard& guard : guards) {
    if (guard.task.load() == nullptr || address < guard.begin.load() ||
        address >= guard.end.load()) {
      continue;
    }
    const auto& where = *static_cast<const ucontext_t*>(context);
    guard.wrote.store(WasWrite(where));
    guard.touched_at.store(CodeAddress(where));
    guard.Protect(PROT_READ | PROT_WRITE);
    return;
  }
  sigaction(signal, &before, nullptr);  // none of ours: it comes again
}

void InstallHandler() {
  static const bool once = [] {
    struct sigaction action {};
    action.sa_sigaction = OnSignal;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigemptyset(&action.sa_mask);
    return sigaction(SIGSEGV, &action, &before) == 0;
  }();
  static_cast<void>(once);
}

std::string LineOf(uintptr_t code) {
  Program::Get();
  if (!Program::Get().InImage(code)) return "outside of the program";
  // Lines() asks for the address before the one it is given.
  // NOLINTNEXTLINE(performance-no-int-to-ptr): as the signal gives it
  const auto lines = Program::Get().Lines(Program::SiteOf(reinterpret_cast<void*>(code + 1)));
  return lines.empty() ? "an unknown line" : lines[0].file + ":" + std::to_string(lines[0].line);
}

}  // namespace

void* AllocatePinned(size_t bytes) {
  const size_t mapped = (bytes + PageBytes() - 1) / PageBytes() * PageBytes();
  void* memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  All().emplace(reinterpret_cast<uintptr_t>(memory), Pinned{bytes, mapped});
  return memory;
}

Rows FindPinned(const void* memory) {
  const auto found = All().find(reinterpret_cast<uintptr_t>(memory));
  if (found == All().end()) return {};
  return {static_cast<uint8_t*>(const_cast<void*>(memory)), found->second.bytes,
          found->second.bytes, 1};
}

void FreePinned(void* memory) {
  const auto found = All().find(reinterpret_cast<uintptr_t>(memory));
  munmap(memory, found->second.mapped);
  All().erase(found);
}

bool GuardPinned(const Rows& rows, HostUse use, const Task& task) {
  const uintptr_t first = reinterpret_cast<uintptr_t>(rows.first);
  const auto after = All().upper_bound(first);
  if (after == All().begin() || rows.width != rows.pitch) return false;
  const auto& [start, pinned] = *std::prev(after);
  const size_t offset = first - start;
  if (offset >= pinned.bytes) return false;
  const size_t skipped = (PageBytes() - offset % PageBytes()) % PageBytes();
  size_t end_offset = offset + rows.bytes();
  // The last page holds nothing else.
  end_offset = end_offset >= pinned.bytes ? pinned.mapped : end_offset / PageBytes() * PageBytes();
  if (offset + skipped >= end_offset) return false;
  uint8_t* begin = rows.first + skipped;
  uint8_t* end = rows.first + (end_offset - offset);
  const auto meets = [begin, end](const Guard& guard) {
    return guard.task.load() != nullptr && guard.begin.load() < end && guard.end.load() > begin;
  };
  if (std::any_of(guards.begin(), guards.end(), meets)) return false;
  Guard* guard = std::find_if(guards.begin(), guards.end(),
                              [](const Guard& one) { return one.task.load() == nullptr; });
  if (guard == guards.end()) return false;
  InstallHandler();
  guard->begin.store(begin);
  guard->end.store(end);
  guard->touched_at.store(0);
  guard->task.store(&task);
  guard->Protect(use == HostUse::kRead ? PROT_READ : PROT_NONE);
  return true;
}

std::string UnguardPinned(const Task& task) {
  Guard* guard = std::find_if(guards.begin(), guards.end(),
                              [&task](const Guard& one) { return one.task.load() == &task; });
  if (guard == guards.end()) return "";
  guard->Protect(PROT_READ | PROT_WRITE);
  guard->task.store(nullptr);
  const uintptr_t code = guard->touched_at.load();
  if (code == 0) return "";
  return std::string("was ") + (guard->wrote.load() ? "written" : "read") + " at " + LineOf(code);
}

}  // namespace quern::simt
