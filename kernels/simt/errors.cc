#include <algorithm>
#include <cstdlib>
#include <map>

#include "kernels/simt/machine.h"

// What errors say, and where.
namespace quern::simt {
namespace {

constexpr size_t kMaxListed = 8;

std::string Tuple(Index index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
         std::to_string(index.z) + ")";
}

// The kernel's own line: what the emulator's headers were inlined into.
Program::Line KernelLine(Site site) {
  const std::vector<Program::Line> lines = Program::Get().Lines(site);
  for (const Program::Line& line : lines) {
    if (!line.file.starts_with("kernels/simt/")) return line;
  }
  return lines.empty() ? Program::Line{"", 0} : lines[0];
}

std::string At(const Program::Line& line) {
  return line.line == 0 ? "an unknown line" : line.file + ":" + std::to_string(line.line);
}

// Puts source lines where Machine::Mark left sites.
std::string Resolved(const std::string& text) {
  std::string resolved;
  for (size_t at = 0; at < text.size(); ++at) {
    const size_t end = text[at] == '\1' ? text.find('\2', at) : std::string::npos;
    if (end == std::string::npos) {
      resolved += text[at];
      continue;
    }
    resolved += At(KernelLine(static_cast<Site>(std::strtoul(text.c_str() + at + 1, nullptr, 10))));
    at = end;
  }
  return resolved;
}

Dim3 ToDim(Index index) { return {index.x, index.y, index.z}; }

}  // namespace

const char* Name(Fault fault) {
  switch (fault) {
    case Fault::kBadLaunch:
      return "bad launch";
    case Fault::kOutOfBounds:
      return "out of bounds";
    case Fault::kUninitialised:
      return "uninitialised";
    case Fault::kMisaligned:
      return "misaligned";
    case Fault::kRace:
      return "race";
    case Fault::kCopyNotWaited:
      return "copy not waited for";
    case Fault::kDivergentBarrier:
      return "divergent barrier";
    case Fault::kDivergentWarp:
      return "divergent warp";
    case Fault::kExitedLane:
      return "exited lane";
    case Fault::kBadMask:
      return "bad mask";
    case Fault::kBadArgument:
      return "bad argument";
    case Fault::kHang:
      return "hang";
    case Fault::kUseAfterFree:
      return "use after free";
    case Fault::kUseBeforeAllocation:
      return "use before allocation";
    case Fault::kHostMemory:
      return "host memory in use";
  }
  return "?";
}

std::string Machine::Who(uint32_t block, int thread) const {
  return "thread " + Tuple(ThreadIndexOf(thread)) + " of block " + Tuple(BlockIndexOf(block));
}

void Machine::AddError(Fault fault, const std::string& text, const Thread* thread, Site site,
                       Where where) {
  failed_ = true;
  Error error{fault, report_.kernel, {0, 0, 0}, {0, 0, 0}, "", 0, ""};
  Program::Line line{where.file == nullptr ? "" : SourcePath(where.file), where.line};
  if (site != 0) line = KernelLine(site);
  error.file = line.file;
  error.line = line.line;
  error.text = std::string(Name(fault)) + ": " + Resolved(text);
  if (thread != nullptr) {
    error.block = ToDim(thread->block->index);
    error.thread = ToDim(thread->index);
    error.text += "; " + Who(thread->block->number, thread->number);
  }
  if (of_kernel_) {
    if (line.line != 0) error.text += ", " + At(line);
    error.text += ", in " + report_.kernel;
  }
  error.text += ", seed " + std::to_string(options_.seed);
  report_.errors.push_back(std::move(error));
}

// An access of the operation that has just ended.
void Machine::ReportConflict(const GlobalMemory::Conflict& conflict) {
  const PageHistory::Conflict& with = conflict.with;
  const Thread* none = nullptr;
  Site site = 0;
  std::string who;
  for (int i = 0; i < conflict.cell->count; ++i) {
    const Entry& entry = conflict.cell->At(i);
    if ((entry.mask & with.bytes.mask) == 0 || IsWrite(entry.kind()) != with.wrote) continue;
    site = entry.site;
    who = " by " + Who(entry.block, entry.thread);
    break;
  }
  AddError(Fault::kRace,
           std::string(with.wrote ? "write" : "read") + who + " of global memory " +
               global_.Describe(conflict.address) + ", which " + with.old->Text() +
               (with.old_wrote ? " has written" : " has read") + ": nothing orders that before " +
               operation_->Text(),
           none, site, site == 0 ? operation_->where : Where{});
}

// No thread can run, and not all have ended.
void Machine::ReportStuck() {
  std::map<std::string, std::vector<const Thread*>> waiting;
  int ended = 0;
  for (const auto& block : blocks_) {
    ended += block->exited;
    for (const Thread& thread : block->threads) {
      if (thread.exited) continue;
      waiting[std::string(thread.waits_for) + " at " +
              At({SourcePath(thread.waits_at.file), thread.waits_at.line})]
          .push_back(&thread);
    }
  }
  std::string text;
  const Thread* first = nullptr;
  bool at_block_barrier = true;
  size_t listed = 0;
  for (const auto& [where, threads] : waiting) {
    if (first == nullptr) first = threads[0];
    if (!std::string_view(threads[0]->waits_for).starts_with("__syncthreads")) {
      at_block_barrier = false;
    }
    if (++listed > kMaxListed) continue;
    text += (text.empty() ? "" : "; ") + std::to_string(threads.size()) + " threads wait in " +
            where + " (the first is " + Who(threads[0]->block->number, threads[0]->number) + ")";
  }
  if (ended > 0) text += "; " + std::to_string(ended) + " threads have ended";
  const bool divergent = at_block_barrier && ended > 0;
  if (first == nullptr) return;  // at least one has not ended
  AddError(divergent ? Fault::kDivergentBarrier : Fault::kHang,
           (divergent ? "not all threads of the block come to the barrier: "
                      : "every thread waits for others: ") +
               text,
           first, 0, first->waits_at);
}

}  // namespace quern::simt
