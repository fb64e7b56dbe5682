#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kernels/simt/shadow.h"

namespace quern::simt {

// A source file as the compiler names it ("./build/simt/../../x.cu"), from the root of the
// checkout.
std::string SourcePath(const std::string& file);

// The running program as its own symbol table tells it: where static __shared__ variables lie (they
// are thread-local variables to the compiler) and what functions are called. ELF, Linux.
class Program {
 public:
  struct Variable {
    std::string name;  // "quern::kernels::Kernel(...)::tile"
    uint64_t offset;   // within the program's block of thread-local storage
    uint64_t bytes;
  };

  static const Program& Get();

  // Thread-local variables by offset; empty if the program was stripped.
  const std::vector<Variable>& variables() const { return variables_; }
  // Of the calling thread.
  uintptr_t thread_local_base() const;
  uint64_t thread_local_bytes() const { return thread_local_bytes_; }
  // The index in variables() that holds the offset or lies just before it; -1 if there is none.
  int FindVariable(uint64_t offset) const;

  // The writable variable, of no thread, that holds the address; null if there is none.
  struct Global {
    uintptr_t address;
    uint64_t bytes;
    std::string name;
    bool constant;  // __constant__
  };
  const Global* FindGlobal(uintptr_t address) const;

  std::string FunctionName(const void* entry) const;
  // The program has been asked for before.
  static Site SiteOf(const void* address) {
    return static_cast<Site>(reinterpret_cast<uintptr_t>(address) - base_);
  }
  // Whether the address lies in the program's constants and variables.
  bool InImage(uintptr_t address) const { return address >= image_begin_ && address < image_end_; }

  // Source lines from the innermost inlined function outwards, of the address before `site`, to
  // which a call returns; asked from addr2line (binutils). Empty if they cannot be had.
  struct Line {
    std::string file;
    int line;
  };
  std::vector<Line> Lines(Site site) const;

 private:
  Program();
  void ReadSymbols(const std::vector<char>& file);

  static inline constinit uintptr_t base_ = 0;
  uintptr_t image_begin_ = 0;
  uintptr_t image_end_ = 0;
  uint64_t thread_local_bytes_ = 0;
  uint64_t anchor_offset_ = 0;
  std::vector<Variable> variables_;
  std::map<uint64_t, std::string> functions_;
  std::map<uintptr_t, Global> globals_;
};

}  // namespace quern::simt
