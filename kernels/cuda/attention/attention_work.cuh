#pragma once

#include "kernels/cuda/attention/attention_launch.h"

namespace quern::kernels {

// A tile of a sequence's rows: row r is the query r / group and, of the heads that share a KV head,
// the head r % group. And the tokens that the tile sees.
struct AttentionWork {
  int sequence, row_tile;
  int first_query;  // of the sequence, in the batch
  int queries;
  int context;
  int first_row, rows;  // of the tile
  int first_token;      // that a row sees
  int begin, end;       // the same with `begin` a multiple of kSplitGranule
  int splits;

  // The tile `index` of all sequences' tiles of `tile_rows`; false where it has no rows.
  __device__ bool Find(const DeviceAttentionLaunch& launch, int tile_rows, int index) {
    // Late rows see most: they begin first.
    row_tile = launch.row_tiles - 1 - index % launch.row_tiles;
    sequence = index / launch.row_tiles;
    first_query = launch.query_begins[sequence];
    queries = min(launch.query_begins[sequence + 1] - first_query, launch.max_queries);
    first_row = row_tile * tile_rows;
    rows = min(queries * launch.group - first_row, tile_rows);
    if (rows <= 0) return false;
    context = min(launch.contexts[sequence], launch.max_context);
    const int first = Position(launch, 0);
    first_token = launch.window > 0 ? max(0, first - launch.window + 1) : 0;
    begin = first_token / kSplitGranule * kSplitGranule;
    end = Position(launch, rows - 1) + 1;
    splits = min(SplitCount(end - begin), launch.max_splits);
    return true;
  }

  // Of the tile's row `row`: where its query sits, which one it is in the batch, and its head.
  __device__ int Position(const DeviceAttentionLaunch& launch, int row) const {
    return context - queries + (first_row + row) / launch.group;
  }
  __device__ int64_t Query(const DeviceAttentionLaunch& launch, int row) const {
    return first_query + (first_row + row) / launch.group;
  }
  __device__ int Head(const DeviceAttentionLaunch& launch, int kv_head, int row) const {
    return kv_head * launch.group + (first_row + row) % launch.group;
  }
  // The first of the parts of the tile's splits.
  __device__ int64_t Parts(const DeviceAttentionLaunch& launch, int kv_head) const {
    return ((static_cast<int64_t>(sequence) * launch.row_tiles + row_tile) * launch.kv_heads +
            kv_head) *
           launch.max_splits;
  }
};

}  // namespace quern::kernels
