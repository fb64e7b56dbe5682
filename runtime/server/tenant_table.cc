#include "runtime/server/tenant_table.h"

#include <openssl/sha.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "runtime/base/near_name.h"
#include "runtime/server/fields.h"

namespace quern::server {
using nlohmann::json;

namespace {

// Deeper than any valid file: tenants, tenant, keys, key.
constexpr int kMaxTenantsDepth = 8;

Error Wrong(std::string_view place, std::string_view what) {
  return MakeError(ErrorCode::kInvalidArgument, "{} {}", place, what);
}

// nlohmann's callback: notes a member that an object has twice, of which the parser would silently
// keep the last, and stops at what is nested too deeply.
class ShapeCheck {
 public:
  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    if (depth > kMaxTenantsDepth) too_deep_ = true;
    if (event == json::parse_event_t::object_start) names_.emplace_back();
    if (event == json::parse_event_t::object_end) names_.pop_back();
    if (event == json::parse_event_t::key && !too_deep_) {
      if (!names_.back().insert(parsed.get<std::string>()).second) duplicate_ = true;
    }
    return !too_deep_;
  }
  bool too_deep() const { return too_deep_; }
  bool duplicate() const { return duplicate_; }

 private:
  std::vector<std::set<std::string>> names_;
  bool too_deep_ = false;
  bool duplicate_ = false;
};

// The line and column of a byte, counted from 1.
std::string PlaceOf(std::string_view text, size_t byte) {
  const std::string_view before = text.substr(0, std::min(byte > 0 ? byte - 1 : 0, text.size()));
  const size_t newline = before.rfind('\n');
  return fmt::format(
      "line {}, column {}", 1 + std::count(before.begin(), before.end(), '\n'),
      newline == std::string_view::npos ? before.size() + 1 : before.size() - newline);
}

Result<json> ParseJson(std::string_view text) {
  ShapeCheck check;
  json value;
  try {
    value = json::parse(text, std::ref(check));
  } catch (const json::parse_error& error) {
    // Not the parser's own words: they quote what was read, which may be a key.
    return Wrong(PlaceOf(text, error.byte), "is where the file stops being valid JSON");
  } catch (const json::exception&) {
    return Wrong("the file", "has a number that is out of range");
  }
  if (check.too_deep())
    return Wrong("the file", "is nested too deeply: a tenant is an object in the array 'tenants'");
  if (check.duplicate()) return Wrong("the file", "has an object that names the same member twice");
  if (!value.is_object()) {
    return Wrong("the file", "must be a JSON object: {\"tenants\": [...]}");
  }
  return value;
}

// The unknown name itself is not shown: it may be a key in the wrong place.
Status CheckMembers(const json& object, const std::string& place,
                    const std::set<std::string>& known) {
  for (const auto& [name, value] : object.items()) {
    if (known.count(name) > 0) continue;
    if (const std::string* meant = NearestName(name, known)) {
      return Wrong(place, fmt::format("has an unknown member; did you mean '{}'?", *meant));
    }
    return Wrong(place,
                 fmt::format("has an unknown member; known are: {}", fmt::join(known, ", ")));
  }
  return {};
}

bool IsLabel(std::string_view name) {
  const auto inner = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  };
  return !name.empty() && name.size() <= kMaxTenantNameBytes &&
         std::all_of(name.begin(), name.end(), inner) && name.front() != '-' && name.back() != '-';
}

Result<std::string> ReadName(const json& tenant, const std::string& place) {
  const auto found = tenant.find("name");
  if (found == tenant.end() || !found->is_string() ||
      !IsLabel(found->get_ref<const std::string&>())) {
    return Wrong(place + ".name",
                 fmt::format("must be a string of 1 to {} lower-case letters, digits and '-', "
                             "beginning and ending with a letter or digit",
                             kMaxTenantNameBytes));
  }
  return found->get<std::string>();
}

// `fallback` where there is no such member.
Result<double> ReadNumber(const json& tenant, const std::string& place, const char* name,
                          double fallback, double min, double max, bool whole) {
  const auto found = tenant.find(name);
  if (found == tenant.end()) return fallback;
  const double number = found->is_number() ? found->get<double>() : std::nan("");
  if (!(number >= min && number <= max) || (whole && number != std::floor(number))) {
    return Wrong(fmt::format("{}.{}", place, name),
                 fmt::format("must be a {}number from {} to {}", whole ? "whole " : "", min, max));
  }
  return number;
}

std::optional<Sha256> FromHex(std::string_view text) {
  Sha256 digest{};
  if (text.size() != 2 * digest.size()) return std::nullopt;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    uint8_t nibble = 0;
    if (c >= '0' && c <= '9') {
      nibble = static_cast<uint8_t>(c - '0');
    } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
      nibble = static_cast<uint8_t>((c | 0x20) - 'a' + 10);
    } else {
      return std::nullopt;
    }
    digest[i / 2] = static_cast<uint8_t>(digest[i / 2] << 4 | nibble);
  }
  return digest;
}

std::optional<Sha256> FromKey(std::string_view text) {
  const auto visible = [](char c) { return c > 0x20 && c < 0x7f; };
  if (text.size() < kMinKeyBytes || text.size() > kMaxKeyBytes) return std::nullopt;
  if (!std::all_of(text.begin(), text.end(), visible)) return std::nullopt;
  return Sha256Of(text);
}

struct KeyDigest {
  std::string place;
  Sha256 digest;
};

// Appends the digests of the member `name`, an array that `read` understands, to `keys`.
Status ReadKeys(const json& tenant, const std::string& place, const char* name,
                std::optional<Sha256> (*read)(std::string_view), std::string_view wanted,
                std::vector<KeyDigest>& keys) {
  const auto found = tenant.find(name);
  if (found == tenant.end()) return {};
  const std::string at = fmt::format("{}.{}", place, name);
  if (!found->is_array()) return Wrong(at, "must be an array of strings");
  if (keys.size() + found->size() > kMaxKeysPerTenant) {
    return Wrong(place, fmt::format("has more than {} keys", kMaxKeysPerTenant));
  }
  for (size_t i = 0; i < found->size(); ++i) {
    const json& value = (*found)[i];
    const std::string where = fmt::format("{}[{}]", at, i);
    const auto digest =
        value.is_string() ? read(value.get_ref<const std::string&>()) : std::nullopt;
    if (!digest) return Wrong(where, wanted);
    keys.push_back({where, *digest});
  }
  return {};
}

Result<std::vector<KeyDigest>> ReadAllKeys(const json& tenant, const std::string& place) {
  static const std::string kKeyWanted =
      fmt::format("must be a string of {} to {} visible ASCII characters without spaces",
                  kMinKeyBytes, kMaxKeyBytes);
  std::vector<KeyDigest> keys;
  QUERN_TRY(ReadKeys(tenant, place, "keys", FromKey, kKeyWanted, keys));
  QUERN_TRY(ReadKeys(tenant, place, "key_sha256", FromHex,
                     "must be a string of 64 hexadecimal digits, the key's SHA-256", keys));
  if (keys.empty()) return Wrong(place, "has no key: it needs 'keys' or 'key_sha256'");
  return keys;
}

Result<Tenant> ReadTenant(const json& value, const std::string& place) {
  if (!value.is_object()) return Wrong(place, "must be an object with a name and keys");
  QUERN_TRY(CheckMembers(value, place,
                         {"name", "keys", "key_sha256", "weight", "priority", "max_requests"}));
  Tenant tenant;
  QUERN_ASSIGN(tenant.name, ReadName(value, place));
  QUERN_ASSIGN(tenant.weight, ReadNumber(value, place, "weight", 1, kMinTenantWeight,
                                         kMaxTenantWeight, /*whole=*/false));
  QUERN_ASSIGN(const double priority,
               ReadNumber(value, place, "priority", 0, 0, kMaxTenantPriority, /*whole=*/true));
  QUERN_ASSIGN(const double requests,
               ReadNumber(value, place, "max_requests", 0, 0, kMaxTenantRequests, /*whole=*/true));
  tenant.priority = static_cast<int32_t>(priority);
  tenant.max_requests = static_cast<int32_t>(requests);
  return tenant;
}

}  // namespace

Sha256 Sha256Of(std::string_view bytes) {
  Sha256 digest;
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest.data());
  return digest;
}

Result<std::shared_ptr<const TenantTable>> TenantTable::Parse(std::string_view text) {
  if (text.size() > kMaxTenantsFileBytes) {
    return Wrong("the file", fmt::format("has more than {} bytes", kMaxTenantsFileBytes));
  }
  QUERN_ASSIGN(const json file, ParseJson(text));
  QUERN_TRY(CheckMembers(file, "the file", {"tenants"}));
  const auto list = file.find("tenants");
  if (list == file.end() || !list->is_array() || list->empty() || list->size() > kMaxTenants) {
    return Wrong("tenants", fmt::format("must be an array of 1 to {} tenants", kMaxTenants));
  }
  auto table = std::make_shared<TenantTable>();
  std::set<std::string> names;
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string place = fmt::format("tenants[{}]", i);
    QUERN_ASSIGN(Tenant read, ReadTenant((*list)[i], place));
    QUERN_ASSIGN(const std::vector<KeyDigest> keys, ReadAllKeys((*list)[i], place));
    if (!names.insert(read.name).second) {
      return Wrong(place + ".name", fmt::format("is '{}', as that of a tenant before", read.name));
    }
    const auto tenant = std::make_shared<const Tenant>(std::move(read));
    table->tenants_.push_back(tenant);
    for (const KeyDigest& key : keys) {
      if (!table->by_key_.emplace(key.digest, tenant).second) {
        return Wrong(key.place, "is a key that stands in the file before");
      }
    }
  }
  return std::shared_ptr<const TenantTable>(std::move(table));
}

std::shared_ptr<const Tenant> TenantTable::Find(std::string_view key) const {
  if (key.empty() || key.size() > kMaxKeyBytes) return nullptr;
  const auto found = by_key_.find(Sha256Of(key));
  return found == by_key_.end() ? nullptr : found->second;
}

}  // namespace quern::server
