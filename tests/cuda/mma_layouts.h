#pragma once

#include <array>

// Which element of a matrix each register of each lane holds for mma.sync: the numbers of CuTe's
// MMA_Traits (CUTLASS 4.2.0, mma_traits_sm80.hpp and mma_traits_sm89.hpp). A layout there counts a
// lane's values, element by element through its registers, and gives an index within the matrix
// column by column: A is (16 rows, k), B (8 columns, k), C (16 rows, 8 columns).
namespace quern::kernels::testing {

struct Mode {
  int size;
  int stride;
};

struct FragmentLayout {
  std::array<Mode, 2> lane;
  std::array<Mode, 3> value;  // size 1: not there

  int Index(int lane_number, int value_number) const {
    int index = 0;
    for (const Mode& mode : lane) {
      index += lane_number % mode.size * mode.stride;
      lane_number /= mode.size;
    }
    for (const Mode& mode : value) {
      index += value_number % mode.size * mode.stride;
      value_number /= mode.size;
    }
    return index;
  }
};

struct MmaLayouts {
  FragmentLayout a, b;
};
inline constexpr FragmentLayout kSums = {{{{4, 32}, {8, 1}}}, {{{2, 16}, {2, 8}, {1, 0}}}};
inline constexpr MmaLayouts kK8 = {{{{{4, 32}, {8, 1}}}, {{{2, 16}, {2, 8}, {1, 0}}}},
                                   {{{{4, 16}, {8, 1}}}, {{{2, 8}, {1, 0}, {1, 0}}}}};
inline constexpr MmaLayouts kK16 = {{{{{4, 32}, {8, 1}}}, {{{2, 16}, {2, 8}, {2, 128}}}},
                                    {{{{4, 16}, {8, 1}}}, {{{2, 8}, {2, 64}, {1, 0}}}}};
inline constexpr MmaLayouts kK32 = {{{{{4, 64}, {8, 1}}}, {{{4, 16}, {2, 8}, {2, 256}}}},
                                    {{{{4, 32}, {8, 1}}}, {{{4, 8}, {2, 128}, {1, 0}}}}};

}  // namespace quern::kernels::testing
