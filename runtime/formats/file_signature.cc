#include "runtime/formats/file_signature.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace quern {
namespace {

struct Signature {
  std::string_view prefix;
  std::string_view description;
};

using namespace std::string_view_literals;

constexpr Signature kSignatures[] = {
    {"PK\x03\x04"sv, "a zip archive, as PyTorch writes its checkpoints: convert it to GGUF first"},
    {"PK\x05\x06"sv, "an empty zip archive"},
    {"\x80\x02"sv, "a Python pickle, as older PyTorch checkpoints are: convert it to GGUF first"},
    {"\x80\x04"sv, "a Python pickle: convert the model to GGUF first"},
    {"version https://git-lfs"sv,
     "a Git LFS pointer: the model itself was never fetched (git lfs pull)"},
    {"<!DOCTYPE"sv, "a web page: the download saved an error or login page in place of the model"},
    {"<!doctype"sv, "a web page: the download saved an error or login page in place of the model"},
    {"<html"sv, "a web page: the download saved an error or login page in place of the model"},
    {"<?xml"sv, "an XML document, such as an object store's error message"},
    {"tjgg"sv, "a GGJT file, the format before GGUF: convert the model again"},
    {"lmgg"sv, "a GGML file, the format before GGUF: convert the model again"},
    {"fmgg"sv, "a GGMF file, the format before GGUF: convert the model again"},
    {"algg"sv, "a GGLA adapter, not a model"},
    {"FUGG"sv, "GGUF with its bytes swapped"},
    {"\x1f\x8b"sv, "a gzip archive: unpack it first"},
    {"\x28\xb5\x2f\xfd"sv, "a zstd archive: unpack it first"},
    {"\xfd\x37zXZ"sv, "an xz archive: unpack it first"},
    {"\x89HDF"sv, "an HDF5 file, as Keras writes: convert it to GGUF first"},
    {"\x7f\x45LF"sv, "an ELF program"},
    {"{"sv, "a JSON document, such as config.json: name the .gguf file itself"},
};

bool LooksLikeSafetensors(std::string_view head) {
  // Eight bytes of header length, then the header, a JSON object.
  if (head.size() < 9 || head[8] != '{') return false;
  return head[5] == '\0' && head[6] == '\0' && head[7] == '\0';
}

}  // namespace

std::string_view DescribeSignature(std::span<const std::byte> head) {
  const std::string_view text(reinterpret_cast<const char*>(head.data()),
                              std::min<size_t>(head.size(), 64));
  if (LooksLikeSafetensors(text)) {
    return "a safetensors file: convert it to GGUF first";
  }
  for (const Signature& signature : kSignatures) {
    if (text.starts_with(signature.prefix)) return signature.description;
  }
  if (text.size() >= 4 && text.find_first_not_of('\0') == std::string_view::npos) {
    return "nothing but zeros: an unfinished download";
  }
  return {};
}

std::string Printable(std::string_view bytes, size_t limit) {
  std::string out;
  for (const char c : bytes.substr(0, limit)) {
    if (c >= 0x20 && c < 0x7f) {
      out.push_back(c);
    } else {
      fmt::format_to(std::back_inserter(out), "\\x{:02x}", static_cast<uint8_t>(c));
    }
  }
  if (bytes.size() > limit) out += "...";
  return out;
}

}  // namespace quern
