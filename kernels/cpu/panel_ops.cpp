// Large products on weights in panels (panels.h), in fp32 or with both operands in bf16.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <type_traits>

#include "panel_blocks.h"

namespace ioi_fast {
namespace {

bool panels_supported() {
#if IOI_FAST_INTRINSICS
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
#else
  return false;
#endif
}

bool bf16_panels_supported() {
#if IOI_FAST_INTRINSICS
  return panels_supported() && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

template <class Operand>
struct PanelLinear {
  const float* rows;  // [R, K]
  const Word* panels;
  const float* bias;  // may be null
  float* out;         // [R, width]
  int64_t K, width;

  int64_t steps() const { return words<Operand>(K); }

  // Some rows as operands: as they are, or rounded into room of their own.
  const Word* operands(int64_t first, int64_t height, Scratch& room) const {
    if constexpr (std::is_same_v<Operand, Fp32>) return rows + first * K;
    room = scratch(height * steps());
    for (int64_t i = 0; i < height; ++i) {
      Operand::store(rows + (first + i) * K, K, room.get() + i * steps());
    }
    return room.get();
  }

  // Where the last panel is wider than what is left of the output, it goes through a buffer of its
  // own.
  void multiply(const Word* from, int64_t first, int64_t height, int64_t begin, int64_t end) const {
    const Word* panel = panels + begin * steps() * kPanel;
    float* to = out + first * width + begin * kPanel;
    const float* add = bias ? bias + begin * kPanel : nullptr;
    const int64_t rest = std::min(end * kPanel, width) - (end - 1) * kPanel;
    const int64_t wholes = end - begin - (rest < kPanel);
    panel_product<Operand>(from, height, steps(), panel, steps(), wholes, add, to, width, panel);
    if (rest == kPanel) return;
    const Scratch last = scratch(height * kPanel);
    panel_product<Operand>(from, height, steps(), panel + wholes * steps() * kPanel, steps(), 1,
                           add ? add + wholes * kPanel : nullptr, last.get(), kPanel, panel);
    for (int64_t i = 0; i < height; ++i) {
      const float* row = last.get() + i * kPanel;
      std::copy(row, row + rest, to + i * width + wholes * kPanel);
    }
  }

  // Threads share the rows, or the panels of few rows.
  void run(int64_t R) const {
    const int64_t count = (width + kPanel - 1) / kPanel;
    if (R < 2 * kStrip * at::get_num_threads()) {
      Scratch room;  // one for all threads
      const Word* from = operands(0, R, room);
      at::parallel_for(0, count, 1,
                       [&](int64_t begin, int64_t end) { multiply(from, 0, R, begin, end); });
      return;
    }
    const int64_t blocks = blocks_of(R, kMostRows);
    at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const int64_t first = R * b / blocks, height = R * (b + 1) / blocks - first;
        Scratch room;
        multiply(operands(first, height, room), first, height, 0, count);
      }
    });
  }
};

// rows [R, K] @ weight + bias -> [R, width], in the precision of the panels; with `rounded` rows are
// rounded to bf16 before panels of fp32.
at::Tensor panel_linear(const at::Tensor& rows, const at::Tensor& panels,
                        const std::optional<at::Tensor>& bias, int64_t width,
                        bool rounded) {
  TORCH_CHECK(rows.dim() == 2 && rows.scalar_type() == at::kFloat,
              "rows must be float32 [R, K], got ", rows.scalar_type(), " ", rows.sizes());
  const int64_t R = rows.size(0), K = rows.size(1);
  check_panels(panels, K, width, "panels");
  if (bias) {
    TORCH_CHECK(bias->numel() == panels.size(0) * kPanel && bias->scalar_type() == at::kFloat &&
                    bias->is_contiguous(),
                "bias must be contiguous float32 [", panels.size(0) * kPanel, "], got ",
                bias->sizes());
  }
  const at::Tensor in = rows.contiguous();
  at::Tensor out = at::empty({R, width}, in.options());
  if (out.numel() == 0) return out;
  const float *from = in.const_data_ptr<float>(), *add = bias ? bias->const_data_ptr<float>() : nullptr;
  float* to = out.mutable_data_ptr<float>();
  with_operand(panels, rounded, [&](auto operand) {
    PanelLinear<decltype(operand)>{from, words_of(panels), add, to, K, width}.run(R);
  });
  return out;
}

}  // namespace
}  // namespace ioi_fast

TORCH_LIBRARY_FRAGMENT(ioi_fast, library) {
  library.def("panels_supported() -> bool", &ioi_fast::panels_supported);
  library.def("bf16_panels_supported() -> bool", &ioi_fast::bf16_panels_supported);
  library.def("panel_linear(Tensor rows, Tensor panels, Tensor? bias, int width, bool rounded=False) -> Tensor");
}

TORCH_LIBRARY_IMPL(ioi_fast, CPU, library) { library.impl("panel_linear", &ioi_fast::panel_linear); }
