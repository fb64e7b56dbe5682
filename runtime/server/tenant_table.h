#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/engine/engine.h"

namespace quern::server {

// Bounds of the file of tenants, and so of what the server keeps and labels by tenant.
constexpr size_t kMaxTenantsFileBytes = 1 << 20;
constexpr size_t kMaxTenants = 1024;
constexpr size_t kMaxKeysPerTenant = 16;
constexpr size_t kMinKeyBytes = 16;
constexpr size_t kMaxKeyBytes = 256;
constexpr size_t kMaxTenantNameBytes = 63;  // of a DNS label (RFC 1123): it labels metrics
constexpr double kMinTenantWeight = 0.001;
constexpr double kMaxTenantWeight = 1000;
constexpr int32_t kMaxTenantPriority = 1000;
constexpr int32_t kMaxTenantRequests = 1'000'000;

using Sha256 = std::array<uint8_t, 32>;
Sha256 Sha256Of(std::string_view bytes);

// The tenants of one file and their API keys, of which only the SHA-256 is kept. Immutable.
class TenantTable {
 public:
  // Bytes of the file -> checked tenants:
  //   {"tenants": [{"name": "team-a", "keys": ["..."], "key_sha256": ["<64 hex digits>"],
  //                 "weight": 2, "priority": 0, "max_requests": 64}]}
  // kInvalidArgument: names the place ("tenants[2].weight") and what would be right. No value of
  // the file is quoted in an error but a valid name: a key may stand in any place by mistake.
  static Result<std::shared_ptr<const TenantTable>> Parse(std::string_view text);

  // The tenant whose key this is, or null. The time taken depends on the key's hash, which tells
  // nothing of the keys that would be right.
  std::shared_ptr<const Tenant> Find(std::string_view key) const;

  const std::vector<std::shared_ptr<const Tenant>>& tenants() const { return tenants_; }
  size_t keys() const { return by_key_.size(); }

 private:
  std::vector<std::shared_ptr<const Tenant>> tenants_;
  std::map<Sha256, std::shared_ptr<const Tenant>> by_key_;
};

}  // namespace quern::server
