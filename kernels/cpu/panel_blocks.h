// What products on panels share: memory of a block's own, how rows are cut into blocks, checks.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <memory>
#include <new>

#include "panels.h"

namespace ioi_fast {
namespace {

// Rows of a block: enough that a panel is read from afar seldom, few enough that what the block
// makes of them stays in the second cache.
constexpr int64_t kMostRows = 8 * kStrip;

struct Free {
  void operator()(float* memory) const { ::operator delete[](memory, std::align_val_t(64)); }
};
using Scratch = std::unique_ptr<float[], Free>;

inline Scratch scratch(int64_t floats) {
  return Scratch(static_cast<float*>(::operator new[](floats * sizeof(float), std::align_val_t(64))));
}

// Equal blocks of at most `most` rows, a whole number of them for each thread.
inline int64_t blocks_of(int64_t rows, int64_t most) {
  const int64_t threads = at::get_num_threads();
  const int64_t blocks = (rows + most - 1) / most;
  const int64_t even = (blocks + threads - 1) / threads * threads;
  return std::min(even, std::max<int64_t>(blocks, rows / kStrip));
}

inline bool in_bf16(const at::Tensor& panels) { return panels.scalar_type() == at::kBFloat16; }

// Calls run(operand) with that of panels in bf16, of rounded ones in fp32, or of those in fp32.
template <class Run>
void with_operand(const at::Tensor& panels, bool rounded, const Run& run) {
  if (in_bf16(panels)) {
    run(Bf16{});
  } else if (rounded) {
    run(Rounded{});
  } else {
    run(Fp32{});
  }
}

inline const Word* words_of(const at::Tensor& panels) {
  return static_cast<const Word*>(panels.const_data_ptr());
}

// Panels of a weight [K, columns]: fp32 [columns / 32, K, 32], or bf16 [columns / 32, K / 2, 32, 2].
inline void check_panels(const at::Tensor& panels, int64_t K, int64_t columns, const char* name) {
  const int64_t pair = in_bf16(panels) ? 2 : 1, dim = panels.dim();
  const bool shaped = K > 0 && columns > 0 && dim == 2 + pair && (dim == 3 || panels.size(3) == pair) &&
                      panels.size(0) == (columns + kPanel - 1) / kPanel &&
                      panels.size(1) == (K + pair - 1) / pair && panels.size(2) == kPanel;
  TORCH_CHECK(shaped && panels.is_contiguous() && (pair == 2 || panels.scalar_type() == at::kFloat),
              name, " must be contiguous panels of ", K, " x ", columns,
              " in float32 or bfloat16, got ", panels.scalar_type(), " ", panels.sizes());
}

}  // namespace
}  // namespace ioi_fast
