#pragma once

namespace quern::kernels {

// Rotates blocks of x[n] in place by the Hadamard matrix over the square root of its size, which is
// orthogonal and its own inverse: what was large in one element is spread over all of the block,
// and scalar products stay. A block is the largest power of two that divides n: all of a head of
// 64, 128 or 256 elements, 16 of 80, 32 of 96.
using HadamardFn = void (*)(int n, float* x);

constexpr int HadamardBlock(int n) { return n & -n; }

namespace ref {
void Hadamard(int n, float* x);
}  // namespace ref
}  // namespace quern::kernels
