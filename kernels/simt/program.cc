#include "kernels/simt/program.h"

#include <cxxabi.h>
#include <elf.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include "kernels/simt/shared_memory.h"

namespace quern::simt {
namespace {

constexpr const char* kSelf = "/proc/self/exe";
// Where __constant__ (cuda_language.h) puts its variables.
constexpr const char* kConstantSection = "quern_constant";

std::string Demangle(const char* name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> plain(
      abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
  return status == 0 ? plain.get() : name;
}

struct Image {
  uintptr_t base = 0;
  uintptr_t begin = UINTPTR_MAX;
  uintptr_t end = 0;
  uint64_t thread_local_bytes = 0;
};

int FindImage(dl_phdr_info* info, size_t /*size*/, void* result) {
  auto* image = static_cast<Image*>(result);
  image->base = info->dlpi_addr;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type == PT_TLS) image->thread_local_bytes = header.p_memsz;
    if (header.p_type != PT_LOAD) continue;
    image->begin = std::min<uintptr_t>(image->begin, info->dlpi_addr + header.p_vaddr);
    image->end = std::max<uintptr_t>(image->end, info->dlpi_addr + header.p_vaddr + header.p_memsz);
  }
  return 1;  // the first one is the program
}

}  // namespace

std::string SourcePath(const std::string& file) {
  std::string path = std::filesystem::path(file).lexically_normal().string();
  while (path.starts_with("../")) path.erase(0, 3);
  return path;
}

const Program& Program::Get() {
  static const Program program;
  return program;
}

Program::Program() {
  Image image;
  dl_iterate_phdr(FindImage, &image);
  base_ = image.base;
  image_begin_ = image.begin;
  image_end_ = image.end;
  thread_local_bytes_ = image.thread_local_bytes;
  std::ifstream file(kSelf, std::ios::binary);
  ReadSymbols({std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()});
}

void Program::ReadSymbols(const std::vector<char>& file) {
  if (file.size() < sizeof(Elf64_Ehdr)) return;
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(file.data());
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(file.data() + header->e_shoff);
  const char* section_names = file.data() + sections[header->e_shstrndx].sh_offset;
  for (int i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const char* names = file.data() + sections[sections[i].sh_link].sh_offset;
    const auto* symbols = reinterpret_cast<const Elf64_Sym*>(file.data() + sections[i].sh_offset);
    for (size_t s = 0; s < sections[i].sh_size / sizeof(Elf64_Sym); ++s) {
      const Elf64_Sym& symbol = symbols[s];
      const char* name = names + symbol.st_name;
      const int type = ELF64_ST_TYPE(symbol.st_info);
      if (type == STT_FUNC && symbol.st_size > 0) {
        functions_.emplace(symbol.st_value, name);
      } else if (type == STT_TLS && symbol.st_shndx != SHN_UNDEF && symbol.st_size > 0) {
        variables_.push_back({Demangle(name), symbol.st_value, symbol.st_size});
        if (std::strcmp(name, kDynamicSharedSymbol) == 0) anchor_offset_ = symbol.st_value;
      } else if (type == STT_OBJECT && symbol.st_size > 0 && symbol.st_shndx < header->e_shnum) {
        const Elf64_Shdr& section = sections[symbol.st_shndx];
        if ((section.sh_flags & SHF_WRITE) == 0) continue;
        const uintptr_t address = base_ + symbol.st_value;
        const bool constant = std::strcmp(section_names + section.sh_name, kConstantSection) == 0;
        globals_.emplace(address, Global{address, symbol.st_size, Demangle(name), constant});
      }
    }
  }
  std::sort(variables_.begin(), variables_.end(),
            [](const Variable& a, const Variable& b) { return a.offset < b.offset; });
}

uintptr_t Program::thread_local_base() const {
  return reinterpret_cast<uintptr_t>(DynamicShared()) - anchor_offset_;
}

int Program::FindVariable(uint64_t offset) const {
  const auto after = std::upper_bound(
      variables_.begin(), variables_.end(), offset,
      [](uint64_t value, const Variable& variable) { return value < variable.offset; });
  return static_cast<int>(after - variables_.begin()) - 1;
}

const Program::Global* Program::FindGlobal(uintptr_t address) const {
  const auto after = globals_.upper_bound(address);
  if (after == globals_.begin()) return nullptr;
  const Global& before = std::prev(after)->second;
  return address - before.address < before.bytes ? &before : nullptr;
}

std::string Program::FunctionName(const void* entry) const {
  const auto found = functions_.find(reinterpret_cast<uintptr_t>(entry) - base_);
  return found == functions_.end() ? "(unnamed kernel)" : Demangle(found->second.c_str());
}

std::vector<Program::Line> Program::Lines(Site site) const {
  char self[4096];
  const ssize_t length = readlink(kSelf, self, sizeof(self) - 1);
  if (length <= 0 || site == 0) return {};
  self[length] = 0;
  if (std::strchr(self, '\'') != nullptr) return {};
  char command[4300];
  // The address of the call itself, not that after it.
  std::snprintf(command, sizeof(command), "addr2line -i -e '%s' 0x%x 2>/dev/null", self, site - 1);
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command, "r"), pclose);
  std::vector<Line> lines;
  std::array<char, 4096> text;
  while (pipe != nullptr && std::fgets(text.data(), text.size(), pipe.get()) != nullptr) {
    const std::string line = text.data();
    const size_t colon = line.rfind(':');
    if (line.starts_with("??") || colon == std::string::npos) continue;
    lines.push_back({SourcePath(line.substr(0, colon)), std::atoi(line.c_str() + colon + 1)});
  }
  return lines;
}

}  // namespace quern::simt
