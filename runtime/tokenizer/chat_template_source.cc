#include "runtime/tokenizer/chat_template_source.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>

#include "runtime/formats/file_signature.h"
#include "runtime/tokenizer/utf8.h"

namespace quern {
namespace {
using nlohmann::json;

// A token's name in templates and in tokenizer_config.json, and its id's in GGUF.
struct TokenName {
  const char* name;
  const char* gguf_key;
  bool always = false;  // the empty text where a model has none: templates add it to others
};
constexpr TokenName kTokens[] = {
    {"bos_token", "tokenizer.ggml.bos_token_id", true},
    {"eos_token", "tokenizer.ggml.eos_token_id", true},
    {"unk_token", "tokenizer.ggml.unknown_token_id"},
    {"sep_token", "tokenizer.ggml.seperator_token_id"},  // GGUF's own spelling
    {"pad_token", "tokenizer.ggml.padding_token_id"},
    {"cls_token", "tokenizer.ggml.cls_token_id"},
    {"mask_token", "tokenizer.ggml.mask_token_id"},
};
constexpr std::string_view kTemplateKey = "tokenizer.chat_template";
constexpr size_t kMaxTemplates = 64;
constexpr int kMaxDepth = 4;  // of what is read: an object, its list, an object in it, a text

constexpr std::string_view kWanted =
    "expected a Jinja template (chat_template.jinja), or a JSON file with the member "
    "'chat_template' (tokenizer_config.json)";

template <typename... Args>
Error Wrong(const std::string& path, fmt::format_string<Args...> format, Args&&... args) {
  return MakeError(ErrorCode::kInvalidArgument, "{}: {}", path,
                   fmt::format(format, std::forward<Args>(args)...));
}

void SetToken(ChatTemplateSource& source, std::string_view name, std::string text) {
  for (auto& [known, old] : source.tokens) {
    if (known == name) {
      old = std::move(text);
      return;
    }
  }
  source.tokens.emplace_back(name, std::move(text));
}

// A template's text may itself begin with a brace, but with none that JSON's objects begin with.
bool LooksLikeJson(std::string_view bytes) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t begin = bytes.find_first_not_of(kBlanks);
  if (begin == bytes.npos || bytes[begin] != '{') return false;
  const size_t next = bytes.find_first_not_of(kBlanks, begin + 1);
  return next != bytes.npos && (bytes[next] == '"' || bytes[next] == '}');
}

// Of a file that can be megabytes long, the members that matter here.
Result<json> ReadMembers(std::string_view bytes, const std::string& path) {
  const auto keep = [](int depth, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::key && depth == 1) {
      const auto& name = parsed.get_ref<const std::string&>();
      return name == "chat_template" ||
             std::any_of(std::begin(kTokens), std::end(kTokens),
                         [&](const TokenName& token) { return name == token.name; });
    }
    return depth <= kMaxDepth;
  };
  try {
    json members = json::parse(bytes, keep);
    if (members.is_object()) return members;
    return Wrong(path, "the JSON in it is no object: {}", kWanted);
  } catch (const json::parse_error& error) {
    return Wrong(path,
                 "it begins like a JSON object, but is not valid JSON at byte {}. A Jinja template "
                 "that begins so needs a comment in front: {{# #}}",
                 error.byte);
  } catch (const json::exception& error) {
    return Wrong(path, "it cannot be read as JSON: {}", error.what());
  }
}

// A token's text: a string, or an object with it in `content`; null: the model has none.
Result<std::string> TokenText(const json& token, const char* name, const std::string& path) {
  if (token.is_null()) return std::string();
  const json* text = &token;
  if (token.is_object() && token.contains("content")) text = &token["content"];
  if (!text->is_string()) {
    return Wrong(path, "'{}' must be a string, an object with a string 'content', or null", name);
  }
  return text->get<std::string>();
}

Status ReadTemplates(const json& value, const std::string& path, ChatTemplateSource& source) {
  if (value.is_string()) {
    source.templates.emplace_back(ChatTemplateSource::kDefault, value.get<std::string>());
    return {};
  }
  if (!value.is_array() || value.empty()) {
    return Wrong(path,
                 "'chat_template' must be a string, or a list of objects with a 'name' and a "
                 "'template'");
  }
  if (value.size() > kMaxTemplates) {
    return Wrong(path, "'chat_template' lists {} templates: at most {} are read", value.size(),
                 kMaxTemplates);
  }
  for (size_t i = 0; i < value.size(); ++i) {
    const json& one = value[i];
    const auto text = [&](const char* member) {
      return one.is_object() && one.contains(member) && one[member].is_string();
    };
    if (!text("name") || !text("template")) {
      return Wrong(path,
                   "'chat_template[{}]' must be an object with the strings 'name' and "
                   "'template'",
                   i);
    }
    auto name = one["name"].get<std::string>();
    for (const auto& [known, known_text] : source.templates) {
      if (known == name) {
        return Wrong(path, "'chat_template' lists two templates named '{}'", Printable(name));
      }
    }
    source.templates.emplace_back(std::move(name), one["template"].get<std::string>());
  }
  return {};
}

}  // namespace

Result<ChatTemplateSource> ChatTemplateSourceOf(const GgufFile& file) {
  ChatTemplateSource source;
  source.file = file.path();
  for (const std::string_view key : file.Keys()) {
    if (!key.starts_with(kTemplateKey)) continue;
    std::string_view name = key.substr(kTemplateKey.size());
    const auto text = file.FindString(key);
    if (!text || (!name.empty() && name[0] != '.')) continue;
    if (source.templates.size() == kMaxTemplates) {
      return Wrong(file.path(), "it has more than {} chat templates", kMaxTemplates);
    }
    name = name.empty() ? ChatTemplateSource::kDefault : name.substr(1);
    source.templates.emplace_back(name, *text);
  }
  const auto tokens = file.FindStringArray("tokenizer.ggml.tokens");
  for (const TokenName& token : kTokens) {
    const auto id = file.FindUint(token.gguf_key);
    const bool is_token = id && tokens && *id < tokens->size();
    if (!is_token && !token.always) continue;  // files have such ids for tokens that models lack
    if (!id) {
      source.tokens.emplace_back(token.name, "");
      continue;
    }
    if (!is_token) {
      return MakeError(ErrorCode::kDataLoss, "{}: {} is {}, which is no token", file.path(),
                       token.gguf_key, *id);
    }
    const std::string_view text = (*tokens)[*id];
    if (const auto at = FindInvalidUtf8(text)) {
      return MakeError(ErrorCode::kDataLoss,
                       "{}: {} is {}, a token whose text is not valid UTF-8 at byte {}: chat "
                       "templates cannot write it",
                       file.path(), token.gguf_key, *id, *at);
    }
    source.tokens.emplace_back(token.name, text);
  }
  return source;
}

Result<ChatTemplateSource> ParseChatTemplateFile(std::string_view bytes, const std::string& path,
                                                 const ChatTemplateSource& model) {
  if (bytes.size() > kMaxChatTemplateFileBytes) {
    return Wrong(path, "it is larger than {} MiB: {}", kMaxChatTemplateFileBytes >> 20, kWanted);
  }
  if (bytes.starts_with("GGUF")) {
    return Wrong(path, "it is a GGUF file, which brings its template along as the model: {}",
                 kWanted);
  }
  ChatTemplateSource source;
  source.file = path;
  source.tokens = model.tokens;
  if (bytes.starts_with("\xef\xbb\xbf")) bytes.remove_prefix(3);
  if (!LooksLikeJson(bytes)) {
    if (bytes.find_first_not_of(" \t\r\n") == bytes.npos) {
      return Wrong(path, "it is empty: {}", kWanted);
    }
    if (bytes.find('\0') != bytes.npos) {
      return Wrong(path, "it is no text, but binary: {}", kWanted);
    }
    source.templates.emplace_back(ChatTemplateSource::kDefault, bytes);
    return source;
  }
  QUERN_ASSIGN(const json members, ReadMembers(bytes, path));
  const auto found = members.find("chat_template");
  if (found == members.end() || found->is_null()) {
    return Wrong(path,
                 "it has no 'chat_template'. Where a model's lies in a file of its own, "
                 "chat_template.jinja or chat_template.json, name that one");
  }
  QUERN_TRY(ReadTemplates(*found, path, source));
  for (const TokenName& token : kTokens) {
    const auto given = members.find(token.name);
    if (given == members.end()) continue;
    QUERN_ASSIGN(std::string text, TokenText(*given, token.name, path));
    SetToken(source, token.name, std::move(text));
  }
  return source;
}

Result<ChatTemplateSource> ReadChatTemplateFile(const std::string& path,
                                                const ChatTemplateSource& model) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    return MakeError(ErrorCode::kNotFound, "{}: there is no such file: {}", path, kWanted);
  }
  if (std::filesystem::is_directory(status)) {
    return Wrong(path, "it is a directory: {}", kWanted);
  }
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    return MakeError(ErrorCode::kPermissionDenied, "{}: it cannot be opened: {}", path,
                     std::strerror(errno));
  }
  std::string bytes;
  std::array<char, 64 * 1024> part;
  while (bytes.size() <= kMaxChatTemplateFileBytes && in) {
    in.read(part.data(), part.size());
    bytes.append(part.data(), static_cast<size_t>(in.gcount()));
  }
  if (in.bad()) return MakeError(ErrorCode::kUnavailable, "{}: it cannot be read", path);
  return ParseChatTemplateFile(bytes, path, model);
}

}  // namespace quern
