// Bytes of a file of tenants -> checked tenants or an error of one line.
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string_view>

#include "runtime/server/tenant_table.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quern::server;
  const auto table = TenantTable::Parse({reinterpret_cast<const char*>(data), size});
  if (!table) {
    const std::string_view message = table.error().message;
    if (message.empty() || message.size() > 300) abort();
    for (const char c : message) {
      if (c < 0x20 || c > 0x7e) abort();
    }
    return 0;
  }
  const auto& tenants = (*table)->tenants();
  if (tenants.empty() || tenants.size() > kMaxTenants) abort();
  if ((*table)->keys() < tenants.size()) abort();
  if ((*table)->keys() > tenants.size() * kMaxKeysPerTenant) abort();
  std::set<std::string_view> names;
  for (const auto& tenant : tenants) {
    if (!names.insert(tenant->name).second) abort();
    if (tenant->name.empty() || tenant->name.size() > kMaxTenantNameBytes) abort();
    if (!(tenant->weight >= kMinTenantWeight && tenant->weight <= kMaxTenantWeight)) abort();
    if (tenant->priority < 0 || tenant->priority > kMaxTenantPriority) abort();
    if (tenant->max_requests < 0 || tenant->max_requests > kMaxTenantRequests) abort();
  }
  return 0;
}
