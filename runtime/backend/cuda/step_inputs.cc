#include "runtime/backend/cuda/step_inputs.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <limits>

namespace quern {
namespace {

constexpr int32_t kDecodeQueries = 4;
constexpr int32_t kLeastContext = 256;
constexpr int32_t kLeastColumns = 8;
// Starting a copy takes some 2 us, in which so much comes over PCIe.
constexpr size_t kBytesOfACopy = 32 << 10;

size_t Aligned(size_t bytes) { return (bytes + 15) / 16 * 16; }

template <typename T>
T* At(std::byte* to, size_t offset) {
  return reinterpret_cast<T*>(to + offset);
}

std::span<const int32_t> BlocksOf(const ForwardBatch::Sequence& sequence, int group) {
  return group == 0 ? sequence.blocks : sequence.window_blocks;
}

// Also in release builds: one that is missing would have another sequence's K and V, or foreign
// memory, read and written.
void CheckBlocks(const ForwardBatch::Sequence& sequence, const StepKv& kv, int group) {
  const std::span<const int32_t> blocks = BlocksOf(sequence, group);
  const int32_t first_row = sequence.context_tokens - sequence.num_rows;
  const int32_t first = group == 0 ? 0 : std::max(0, first_row - kv.window + 1);
  const auto begin = static_cast<size_t>(first / kv.block_tokens);
  const auto end = static_cast<size_t>((sequence.context_tokens - 1) / kv.block_tokens);
  if (end >= blocks.size()) std::abort();
  for (size_t i = begin; i <= end; ++i) {
    if (blocks[i] < 0 || blocks[i] >= kv.blocks[group]) std::abort();
  }
}

void WritePlaces(const ForwardBatch::Sequence& sequence, const StepKv& kv, int group,
                 int64_t* places) {
  const std::span<const int32_t> blocks = BlocksOf(sequence, group);
  const int32_t first = sequence.context_tokens - sequence.num_rows;
  for (int32_t i = 0; i < sequence.num_rows; ++i) {
    const int64_t block = blocks[static_cast<size_t>((first + i) / kv.block_tokens)];
    places[sequence.first_row + i] = block * kv.block_tokens + (first + i) % kv.block_tokens;
  }
}

// Which columns of a table's rows are copied: the first ones of all sequences, then more of those
// that are longer.
struct TableCut {
  struct LongRows {
    size_t first, count;  // sequences
    int32_t columns;      // in all
  };
  int32_t columns = 0;
  std::vector<LongRows> longer;
  size_t bytes = 0;  // of both, and of what copies cost

  int32_t ColumnsOf(size_t sequence) const {
    for (const LongRows& rows : longer) {
      if (sequence >= rows.first && sequence < rows.first + rows.count) return rows.columns;
    }
    return columns;
  }
};

TableCut CutAt(int32_t columns, std::span<const int32_t> used) {
  TableCut cut{columns, {}, used.size() * static_cast<size_t>(columns) * 4 + kBytesOfACopy};
  for (size_t s = 0; s < used.size(); ++s) {
    if (used[s] <= columns) continue;
    if (cut.longer.empty() || cut.longer.back().first + cut.longer.back().count < s) {
      cut.longer.push_back({s, 0, 0});
    }
    TableCut::LongRows& rows = cut.longer.back();
    ++rows.count;
    rows.columns = std::max(rows.columns, used[s]);
  }
  for (const TableCut::LongRows& rows : cut.longer) {
    cut.bytes += rows.count * static_cast<size_t>(rows.columns - columns) * 4 + kBytesOfACopy;
  }
  return cut;
}

// The cut that costs least; all columns are copied with the rest of the block.
TableCut CutTables(const int32_t* contexts, const StepSize& size, const StepLayout& layout,
                   const StepKv& kv) {
  std::vector<int32_t> used(static_cast<size_t>(size.sequences));
  for (size_t s = 0; s < used.size(); ++s) {
    used[s] = (contexts[s] + kv.block_tokens - 1) / kv.block_tokens;
  }
  TableCut best = CutAt(layout.table_stride, used);
  best.bytes -= kBytesOfACopy;
  for (int32_t columns = kLeastColumns; columns < layout.table_stride; columns *= 2) {
    TableCut cut = CutAt(columns, used);
    if (cut.bytes < best.bytes) best = std::move(cut);
  }
  return best;
}

void WriteTable(const ForwardBatch& batch, int group, const TableCut& cut, const StepLayout& layout,
                int32_t sequences, int32_t* table) {
  for (size_t s = 0; s < static_cast<size_t>(sequences); ++s) {
    const auto columns = static_cast<size_t>(cut.ColumnsOf(s));
    const std::span<const int32_t> blocks = s < batch.sequences.size()
                                                ? BlocksOf(batch.sequences[s], group)
                                                : std::span<const int32_t>();
    int32_t* row = table + s * static_cast<size_t>(layout.table_stride);
    const size_t count = std::min(blocks.size(), columns);
    std::copy_n(blocks.begin(), count, row);
    std::fill(row + count, row + columns, 0);
  }
}

std::vector<StepCopy> CopiesOf(const TableCut& cut, const StepSize& size, const StepLayout& layout,
                               const StepKv& kv) {
  if (cut.columns == layout.table_stride) return {{0, layout.bytes, 1, layout.bytes}};
  std::vector<StepCopy> copies = {{0, layout.tables[0], 1, layout.tables[0]}};
  const auto sequences = static_cast<size_t>(size.sequences);
  const auto columns = static_cast<size_t>(cut.columns);
  const size_t pitch = static_cast<size_t>(layout.table_stride) * 4;
  for (int group = 0; group < kv.groups; ++group) {
    copies.push_back({layout.tables[group], columns * 4, sequences, pitch});
    for (const TableCut::LongRows& rows : cut.longer) {
      copies.push_back({layout.tables[group] + rows.first * pitch + columns * 4,
                        (static_cast<size_t>(rows.columns) - columns) * 4, rows.count, pitch});
    }
  }
  return copies;
}

}  // namespace

// 1, 2, 4, 8, then multiples of 8, which products take at a time; beyond 128 eight sizes between
// powers of two. Less than 8 rows, or at most an eighth, are filled up for nothing.
int32_t FilledUp(int32_t rows) {
  if (rows <= 8) return static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(rows)));
  const int32_t step = std::max<int32_t>(
      8, static_cast<int32_t>(std::bit_floor(static_cast<uint32_t>(rows - 1))) / 8);
  return (rows + step - 1) / step * step;
}

int32_t FilledUpContext(int32_t tokens) {
  return static_cast<int32_t>(std::min<uint32_t>(
      uint32_t{1} << 30, std::bit_ceil(static_cast<uint32_t>(std::max(kLeastContext, tokens)))));
}

StepSize SizeOf(const ForwardBatch& batch, int32_t most_rows) {
  StepSize size{static_cast<int32_t>(batch.tokens.size()),
                static_cast<int32_t>(batch.sequences.size())};
  bool decodes = !batch.last_waits() && batch.end_layer == std::numeric_limits<int32_t>::max() &&
                 !batch.sequences.empty();
  for (const ForwardBatch::Sequence& sequence : batch.sequences) {
    size.context_tokens = std::max(size.context_tokens, sequence.context_tokens);
    decodes = decodes && sequence.num_rows == 1;
  }
  if (!decodes || FilledUp(size.rows) > most_rows) return size;
  size.padded = true;
  size.rows = size.sequences = FilledUp(size.rows);
  size.context_tokens = FilledUpContext(size.context_tokens);
  return size;
}

StepLayout::StepLayout(const StepSize& size, const StepKv& kv) {
  const auto rows = static_cast<size_t>(size.rows);
  const auto sequences = static_cast<size_t>(size.sequences);
  table_stride = (size.context_tokens + kv.block_tokens - 1) / kv.block_tokens;
  bytes = 0;
  const auto place = [this](size_t size_of, size_t count) {
    const size_t at = bytes;
    bytes += Aligned(size_of * count);
    return at;
  };
  tokens = place(4, rows);
  positions = place(4, rows);
  query_begins = place(4, sequences + 1);
  contexts = place(4, sequences);
  for (int group = 0; group < kv.groups; ++group) places[group] = place(8, rows);
  for (int group = 0; group < kv.groups; ++group) {
    tables[group] = place(4, sequences * static_cast<size_t>(table_stride));
  }
}

std::vector<StepCopy> WriteStepInputs(const ForwardBatch& batch, const StepSize& size,
                                      const StepLayout& layout, const StepKv& kv, std::byte* to) {
  std::memset(to, 0, layout.tables[0]);  // a row that does nothing has token 0 at position 0
  std::ranges::copy(batch.tokens, At<int32_t>(to, layout.tokens));
  std::ranges::copy(batch.positions, At<int32_t>(to, layout.positions));
  auto* begins = At<int32_t>(to, layout.query_begins);
  auto* contexts = At<int32_t>(to, layout.contexts);
  std::fill_n(begins, size.sequences + 1, static_cast<int32_t>(batch.tokens.size()));
  std::fill_n(contexts, size.sequences, 1);
  for (int group = 0; group < kv.groups; ++group) {
    std::fill_n(At<int64_t>(to, layout.places[group]), size.rows, int64_t{-1});
  }
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const ForwardBatch::Sequence& sequence = batch.sequences[s];
    begins[s] = sequence.first_row;
    contexts[s] = sequence.context_tokens;
    for (int group = 0; group < kv.groups; ++group) {
      CheckBlocks(sequence, kv, group);
      WritePlaces(sequence, kv, group, At<int64_t>(to, layout.places[group]));
    }
  }
  const TableCut cut = CutTables(contexts, size, layout, kv);
  for (int group = 0; group < kv.groups; ++group) {
    WriteTable(batch, group, cut, layout, size.sequences, At<int32_t>(to, layout.tables[group]));
  }
  return CopiesOf(cut, size, layout, kv);
}

std::vector<AttentionRun> AttentionRuns(std::span<const ForwardBatch::Sequence> sequences) {
  std::vector<AttentionRun> runs;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const ForwardBatch::Sequence& sequence = sequences[s];
    const bool decode = sequence.num_rows <= kDecodeQueries;
    if (runs.empty() || runs.back().decode != decode) {
      runs.push_back({.first = static_cast<int32_t>(s), .decode = decode});
    }
    AttentionRun& run = runs.back();
    ++run.count;
    run.most_queries = std::max(run.most_queries, sequence.num_rows);
    run.longest_context = std::max(run.longest_context, sequence.context_tokens);
  }
  return runs;
}

}  // namespace quern
