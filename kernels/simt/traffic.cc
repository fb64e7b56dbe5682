#include "kernels/simt/traffic.h"

#include <algorithm>
#include <array>
#include <span>
#include <tuple>

#include "kernels/simt/simt.h"

namespace quern::simt {
namespace {

constexpr uint64_t kSector = 32;
constexpr uint64_t kBankBytes = 4;
constexpr int kBanks = 32;

int64_t Different(std::vector<uint64_t>& values) {
  std::sort(values.begin(), values.end());
  return std::unique(values.begin(), values.end()) - values.begin();
}

bool IsWatched(std::span<const Range> watched, uint64_t address) {
  return std::any_of(watched.begin(), watched.end(), [address](const Range& range) {
    return address - reinterpret_cast<uint64_t>(range.begin) < range.bytes;
  });
}

}  // namespace

// Whether each lane that loads and the one whose number differs in `bit` have the same address.
bool TrafficLog::InPairs(std::span<const Item> lanes, int bit) {
  std::array<uint64_t, 32> addresses;
  addresses.fill(UINT64_MAX);
  for (const Item& item : lanes) addresses[item.lane] = item.address;
  for (const Item& item : lanes) {
    const uint64_t other = addresses[static_cast<size_t>(item.lane ^ bit)];
    if (other != UINT64_MAX && other != item.address) return false;
  }
  return true;
}

int64_t TrafficLog::Wavefronts(std::span<const Item> lanes) {
  uint32_t widest = 4;
  for (const Item& item : lanes) widest = std::max(widest, item.bytes);
  auto group = static_cast<int>(std::max<uint32_t>(1, 128 / widest));
  const bool load = !lanes[0].write;
  if (widest > 4 && load && (InPairs(lanes, 1) || InPairs(lanes, 2)))
    group = std::min(2 * group, 32);
  int64_t wavefronts = 0;
  std::vector<uint64_t> words;
  for (int from = 0; from < 32; from += group) {
    words.clear();
    for (const Item& item : lanes) {
      if (item.lane < from || item.lane >= from + group) continue;
      for (uint64_t at = item.address / kBankBytes; at * kBankBytes < item.address + item.bytes;
           ++at) {
        words.push_back(at);
      }
    }
    words.resize(static_cast<size_t>(Different(words)));
    std::array<int, kBanks> words_of{};
    for (uint64_t word : words) ++words_of[word % kBanks];
    wavefronts += *std::max_element(words_of.begin(), words_of.end());
  }
  return wavefronts;
}

void TrafficLog::Add(int lane, Site site, Space space, bool write, uint64_t address,
                     uint32_t bytes) {
  items_.push_back({address, site, bytes, 0, static_cast<uint8_t>(lane), space, write});
}

void TrafficLog::Flush(Counts& counts, std::span<const Range> watched) {
  if (items_.empty()) return;
  // Turns: items of one lane and site are in the order in which they happened.
  std::stable_sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) {
    return std::tie(a.site, a.write, a.space, a.lane) < std::tie(b.site, b.write, b.space, b.lane);
  });
  for (size_t i = 1; i < items_.size(); ++i) {
    const Item& before = items_[i - 1];
    Item& item = items_[i];
    const bool again = item.site == before.site && item.lane == before.lane &&
                       item.write == before.write && item.space == before.space;
    item.turn = again ? before.turn + 1 : 0;
  }
  std::stable_sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) {
    return std::tie(a.site, a.write, a.space, a.turn) < std::tie(b.site, b.write, b.space, b.turn);
  });
  std::vector<uint64_t> units;
  for (size_t begin = 0; begin < items_.size();) {
    const Item& first = items_[begin];
    size_t end = begin + 1;
    while (end < items_.size() && items_[end].site == first.site &&
           items_[end].turn == first.turn && items_[end].write == first.write &&
           items_[end].space == first.space) {
      ++end;
    }
    const std::span<const Item> lanes(items_.data() + begin, end - begin);
    begin = end;
    AccessCounts& total = first.space == Space::kGlobal
                              ? (first.write ? counts.global_store : counts.global_load)
                              : (first.write ? counts.shared_store : counts.shared_load);
    ++total.instructions;
    for (const Item& item : lanes) total.bytes += item.bytes;
    const uint64_t grain = first.space == Space::kGlobal ? 1 : kBankBytes;
    units.clear();
    for (const Item& item : lanes) {
      for (uint64_t at = item.address / grain; at * grain < item.address + item.bytes; ++at) {
        units.push_back(at);
      }
    }
    const int64_t different = Different(units);
    if (first.space == Space::kGlobal) {
      total.minimum +=
          (different + static_cast<int64_t>(kSector) - 1) / static_cast<int64_t>(kSector);
      for (uint64_t& unit : units) unit /= kSector;
      units.resize(static_cast<size_t>(different));
      const int64_t sectors = Different(units);
      total.units += sectors;
      if (!first.write && !watched.empty()) {
        counts.watched_sectors += std::count_if(
            units.begin(), units.begin() + sectors,
            [watched](uint64_t sector) { return IsWatched(watched, sector * kSector); });
      }
      continue;
    }
    total.minimum += (different + kBanks - 1) / kBanks;
    total.units += Wavefronts(lanes);
  }
  items_.clear();
}

}  // namespace quern::simt
