#include "kernels/simt/machine.h"

// What the host's copies, sets and frees do to device memory, checked as a kernel's accesses are.
namespace quern::simt {

void Machine::BeginTransfer(const OperationRef& operation) {
  options_ = wanted_;
  operation_ = operation;
  failed_ = false;
  global_.Begin();
}

bool Machine::TouchForTransfer(const void* memory, size_t bytes, Touch touch) {
  if (bytes == 0) return true;
  const uintptr_t address = reinterpret_cast<uintptr_t>(memory);
  const std::string what = std::string(IsWrite(touch) ? "write" : "read") + " of " +
                           std::to_string(bytes) + " bytes of global memory ";
  GlobalMemory::Allocation* allocation = global_.Find(memory, bytes);
  if (allocation == nullptr) {
    ReportHostFault(global_.WasFreed(address) ? Fault::kUseAfterFree : Fault::kOutOfBounds,
                    what + global_.Describe(address), *operation_);
    return false;
  }
  const std::string why = global_.WhyNot(*allocation, *operation_);
  if (!why.empty()) {
    ReportHostFault(
        allocation->freed == nullptr ? Fault::kUseBeforeAllocation : Fault::kUseAfterFree,
        what + why, *operation_);
    return false;
  }
  const bool write = IsWrite(touch);
  ForCells(address - reinterpret_cast<uintptr_t>(allocation->memory), bytes,
           [&](uint64_t at, uint16_t mask) {
             GlobalMemory::Page& page = global_.PageAt(*allocation, at);
             Cell& cell = page.cells[at % GlobalMemory::kPageBytes / kCellBytes];
             uint16_t& now = write ? cell.now_written : cell.now_read;
             now = static_cast<uint16_t>(now | mask);
             if (write) cell.written = static_cast<uint16_t>(cell.written | mask);
           });
  return true;
}

bool Machine::EndTransfer() {
  const auto conflict = global_.End(operation_);
  if (!conflict) return true;
  report_ = {};
  of_kernel_ = false;
  report_.kernel = operation_->name;
  ReportConflict(*conflict);
  return false;
}

bool Machine::FreeInOrder(void* memory, const OperationRef& operation) {
  GlobalMemory::Allocation* allocation = global_.Find(memory, 0);
  if (allocation == nullptr) return true;  // the launch that was to use it has failed
  std::string why;
  if (allocation->freed != nullptr) {
    why = allocation->freed->Text() + " frees it, too";
  } else if (allocation->made != nullptr && !operation->After(*allocation->made)) {
    why = allocation->made->Text() + " makes it";
  } else if (const Operation* user = global_.EndLife(*allocation, operation)) {
    why = user->Text() + " uses it";
  }
  if (why.empty()) return true;
  ReportHostFault(Fault::kUseAfterFree,
                  "memory is freed while " + why + ": nothing orders that before the free",
                  *operation);
  return false;
}

void Machine::ReportHostFault(Fault fault, const std::string& text, const Operation& operation) {
  report_ = {};
  of_kernel_ = false;
  report_.kernel = operation.name;
  options_ = wanted_;
  AddError(fault, text + "; " + operation.Text(), nullptr, 0, operation.where);
}

}  // namespace quern::simt
