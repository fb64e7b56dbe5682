#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace quern::control {

// Reads a Kubernetes quantity ("500m", "1.5", "2Gi", "1e3") as a number in its base unit (cores,
// bytes). Empty if it is not one. The grammar is that of apimachinery's resource.Quantity.
std::optional<double> ParseQuantity(std::string_view text);

// The same in whole bytes, rounded up. Empty also for negative values and those above 2^53.
std::optional<int64_t> ParseBytes(std::string_view text);

// Reads a decimal string of the CRD ("0.8", "40"): digits, and perhaps a point and more digits.
std::optional<double> ParseDecimal(std::string_view text);

}  // namespace quern::control
