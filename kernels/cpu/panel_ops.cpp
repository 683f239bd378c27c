// Large products and the whole MLP in difference form, on weights in panels (panels.h).

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <memory>
#include <new>
#include <tuple>

#include "difference_rows.h"
#include "panels.h"

namespace ioi_fast {
namespace {

// Rows of a block: enough that a panel is read from afar seldom, few enough that the block's
// hidden layer stays in the second cache.
constexpr int64_t kBlockFloats = 3 << 17;  // 1.5 MB
constexpr int64_t kMostRows = 8 * kStrip;

struct Free {
  void operator()(float* memory) const { ::operator delete[](memory, std::align_val_t(64)); }
};
using Scratch = std::unique_ptr<float[], Free>;

Scratch scratch(int64_t floats) {
  return Scratch(static_cast<float*>(::operator new[](floats * sizeof(float), std::align_val_t(64))));
}

void check_panels(const at::Tensor& panels, int64_t K, int64_t columns, const char* name) {
  TORCH_CHECK(panels.dim() == 3 && panels.scalar_type() == at::kFloat && panels.is_contiguous() &&
                  panels.size(0) == (columns + kPanel - 1) / kPanel && panels.size(1) == K &&
                  panels.size(2) == kPanel,
              name, " must be contiguous float32 panels of ", K, " x ", columns, ", got ",
              panels.sizes());
}

bool panels_supported() {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(IOI_FAST_PORTABLE)
  return __builtin_cpu_supports("avx512f");
#else
  return false;
#endif
}

// Equal blocks of at most `most` rows, a whole number of them for each thread.
int64_t blocks_of(int64_t rows, int64_t most) {
  const int64_t threads = at::get_num_threads();
  const int64_t blocks = (rows + most - 1) / most;
  const int64_t even = (blocks + threads - 1) / threads * threads;
  return std::min(even, std::max<int64_t>(blocks, rows / kStrip));
}

struct PanelLinear {
  const float *rows, *panels, *bias;  // bias may be null
  float* out;                         // [R, width]
  int64_t K, width;

  // Some rows by some panels. Where the last panel is wider than what is left of the output, it
  // goes through a buffer of its own.
  void product(int64_t first, int64_t height, int64_t begin, int64_t end) const {
    const float* from = rows + first * K;
    const float* panel = panels + begin * K * kPanel;
    float* to = out + first * width + begin * kPanel;
    const float* add = bias ? bias + begin * kPanel : nullptr;
    const int64_t rest = std::min(end * kPanel, width) - (end - 1) * kPanel;
    const int64_t wholes = end - begin - (rest < kPanel);
    panel_product(from, height, K, panel, K, wholes, add, to, width, panel);
    if (rest == kPanel) return;
    const Scratch last = scratch(height * kPanel);
    panel_product(from, height, K, panel + wholes * K * kPanel, K, 1,
                  add ? add + wholes * kPanel : nullptr, last.get(), kPanel, panel);
    for (int64_t i = 0; i < height; ++i) {
      const float* row = last.get() + i * kPanel;
      std::copy(row, row + rest, to + i * width + wholes * kPanel);
    }
  }
};

// rows [R, K] @ weight + bias -> [R, width]; threads share the rows, or the panels of few rows.
at::Tensor panel_linear(const at::Tensor& rows, const at::Tensor& panels,
                        const std::optional<at::Tensor>& bias, int64_t width) {
  TORCH_CHECK(rows.dim() == 2 && rows.scalar_type() == at::kFloat,
              "rows must be float32 [R, K], got ", rows.scalar_type(), " ", rows.sizes());
  const int64_t R = rows.size(0), K = rows.size(1);
  check_panels(panels, K, width, "panels");
  const int64_t count = panels.size(0);
  if (bias) {
    TORCH_CHECK(bias->numel() == count * kPanel && bias->scalar_type() == at::kFloat &&
                    bias->is_contiguous(),
                "bias must be contiguous float32 [", count * kPanel, "], got ", bias->sizes());
  }
  const at::Tensor in = rows.contiguous();
  at::Tensor out = at::empty({R, width}, in.options());
  if (out.numel() == 0) return out;
  const PanelLinear linear{in.const_data_ptr<float>(), panels.const_data_ptr<float>(),
                           bias ? bias->const_data_ptr<float>() : nullptr,
                           out.mutable_data_ptr<float>(), K, width};
  if (R < 2 * kStrip * at::get_num_threads()) {
    at::parallel_for(0, count, 1,
                     [&](int64_t begin, int64_t end) { linear.product(0, R, begin, end); });
    return out;
  }
  const int64_t blocks = blocks_of(R, kMostRows);
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = R * b / blocks;
      linear.product(first, R * (b + 1) / blocks - first, 0, count);
    }
  });
  return out;
}

struct Mlp {
  const float *resid_mid, *pre, *delta, *gain, *w_in, *w_out;
  const int64_t* index;  // base row of each row, or null
  float* out;
  int64_t P, N, D, F;
  float epsilon;
  bool add;  // the change to delta itself

  int64_t inner() const { return (F + kPanel - 1) / kPanel * kPanel; }
  int64_t outer() const { return (D + kPanel - 1) / kPanel * kPanel; }
  // Rows that share a base row stand together: without an index all variants of base row 0 come
  // first, then those of base row 1.
  int64_t base(int64_t row) const { return index ? index[row] : row / P; }
  int64_t place(int64_t row) const { return index ? row * D : (row % P * N + row / P) * D; }
  bool is_new(int64_t row, int64_t first) const {
    return row == first || base(row) != base(row - 1);
  }
};

struct Block {
  Scratch normed, hidden, out;
  Block(int64_t rows, int64_t D, int64_t inner, int64_t outer)
      : normed(scratch(rows * D)), hidden(scratch(rows * inner)), out(scratch(rows * outer)) {}
};

// Calls run(first row, rows, block) for blocks of rows, shared by the threads.
template <class Run>
void in_blocks(int64_t rows, int64_t D, int64_t inner, int64_t outer, const Run& run) {
  const int64_t fit = kBlockFloats / (D + inner + outer);
  const int64_t most = std::clamp<int64_t>(fit / kStrip * kStrip, kStrip, kMostRows);
  const int64_t blocks = blocks_of(rows, most);
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    const Block block((rows + blocks - 1) / blocks, D, inner, outer);
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = rows * b / blocks;
      run(first, rows * (b + 1) / blocks - first, block);
    }
  });
}

void normalise(const Mlp& mlp, int64_t first, int64_t height, float* normed) {
  RowStatistics statistics{};
  for (int64_t i = 0; i < height; ++i) {
    const float* base = mlp.resid_mid + mlp.base(first + i) * mlp.D;
    if (mlp.is_new(first + i, first)) statistics = row_statistics(base, mlp.D, mlp.epsilon);
    layernorm_row(base, statistics, mlp.delta + mlp.place(first + i), mlp.gain, normed + i * mlp.D,
                  mlp.D, mlp.epsilon);
  }
}

void activate(const Mlp& mlp, int64_t first, int64_t height, float* hidden) {
  GeluBase constants;
  for (int64_t start = 0; start < mlp.F; start += kChunk) {
    const int64_t count = std::min(kChunk, mlp.F - start);
    for (int64_t i = 0; i < height; ++i) {
      if (mlp.is_new(first + i, first)) {
        gelu_base(mlp.pre + mlp.base(first + i) * mlp.F + start, count, &constants);
      }
      gelu_row(&constants, hidden + i * mlp.inner() + start, count);
    }
  }
}

void run_block(const Mlp& mlp, int64_t first, int64_t height, const Block& block) {
  const int64_t inner = mlp.inner(), outer = mlp.outer();
  normalise(mlp, first, height, block.normed.get());
  panel_product(block.normed.get(), height, mlp.D, mlp.w_in, mlp.D, inner / kPanel, nullptr,
                block.hidden.get(), inner, mlp.w_out);
  activate(mlp, first, height, block.hidden.get());
  panel_product(block.hidden.get(), height, inner, mlp.w_out, mlp.F, outer / kPanel, nullptr,
                block.out.get(), outer, mlp.w_in);
  for (int64_t i = 0; i < height; ++i) {
    const float* row = block.out.get() + i * outer;
    const int64_t place = mlp.place(first + i);
    if (mlp.add) {
      for (int64_t d = 0; d < mlp.D; ++d) mlp.out[place + d] = mlp.delta[place + d] + row[d];
    } else {
      std::copy(row, row + mlp.D, mlp.out + place);
    }
  }
}

// LayerNorm, both products and gelu_new between them, without leaving the block's cache. `out` may
// be delta: a block has read its rows before it writes them.
void run_mlp(const at::Tensor& resid_mid, const at::Tensor& pre, const at::Tensor& delta,
             const at::Tensor& gain, const at::Tensor& w_in, const at::Tensor& w_out,
             double epsilon, const std::optional<at::Tensor>& index, at::Tensor& out, bool add) {
  const int64_t N = resid_mid.size(0), D = resid_mid.size(-1), F = pre.size(-1);
  TORCH_CHECK(resid_mid.dim() == 2 && pre.dim() == 2 && pre.size(0) == N,
              "resid_mid and pre must be [N, D] and [N, F], got ", resid_mid.sizes(), " and ",
              pre.sizes());
  if (index) {
    TORCH_CHECK(delta.dim() == 2 && delta.size(1) == D && index->dim() == 1 &&
                    index->size(0) == delta.size(0) && index->scalar_type() == at::kLong &&
                    index->is_contiguous(),
                "delta must be [R, D] and index contiguous int64 [R], got ", delta.sizes(), " and ",
                index->sizes());
    const int64_t* rows = index->const_data_ptr<int64_t>();
    TORCH_CHECK(std::all_of(rows, rows + index->numel(), [&](int64_t n) { return 0 <= n && n < N; }),
                "index must be from 0 to ", N - 1);
  } else {
    TORCH_CHECK(delta.dim() >= 2 && delta.size(-1) == D && delta.size(-2) == N,
                "delta must be [..., N, D] for a base of ", resid_mid.sizes(), ", got ",
                delta.sizes());
  }
  TORCH_CHECK(gain.numel() == D, "gain must be [", D, "], got ", gain.sizes());
  for (const at::Tensor& given : {resid_mid, pre, delta, gain}) {
    TORCH_CHECK(given.scalar_type() == at::kFloat, "resid_mid, pre, delta and gain must be float32, got ",
                given.scalar_type());
  }
  check_panels(w_in, D, F, "w_in");
  check_panels(w_out, F, D, "w_out");
  const at::Tensor base = resid_mid.contiguous(), before = pre.contiguous();
  const at::Tensor change = delta.contiguous(), gains = gain.contiguous();
  if (change.numel() == 0) return;
  const Mlp mlp{base.const_data_ptr<float>(),  before.const_data_ptr<float>(),
                change.const_data_ptr<float>(), gains.const_data_ptr<float>(),
                w_in.const_data_ptr<float>(),  w_out.const_data_ptr<float>(),
                index ? index->const_data_ptr<int64_t>() : nullptr,
                out.mutable_data_ptr<float>(), change.numel() / (N * D), N, D, F,
                static_cast<float>(epsilon), add};
  in_blocks(change.numel() / D, D, mlp.inner(), mlp.outer(),
            [&](int64_t first, int64_t height, const Block& block) {
              run_block(mlp, first, height, block);
            });
}

at::Tensor mlp_delta(const at::Tensor& resid_mid, const at::Tensor& pre, const at::Tensor& delta,
                     const at::Tensor& gain, const at::Tensor& w_in, const at::Tensor& w_out,
                     double epsilon, const std::optional<at::Tensor>& index) {
  at::Tensor out = at::empty(delta.sizes(), delta.options());
  run_mlp(resid_mid, pre, delta, gain, w_in, w_out, epsilon, index, out, false);
  return out;
}

at::Tensor& add_mlp_delta_(const at::Tensor& resid_mid, const at::Tensor& pre, at::Tensor& delta,
                           const at::Tensor& gain, const at::Tensor& w_in, const at::Tensor& w_out,
                           double epsilon) {
  TORCH_CHECK(delta.is_contiguous(), "delta must be contiguous, it is overwritten");
  run_mlp(resid_mid, pre, delta, gain, w_in, w_out, epsilon, std::nullopt, delta, true);
  return delta;
}

struct PlainMlp {
  const float *resid_mid, *gain, *bias, *w_in, *b_in, *w_out, *b_out;
  float *pre, *out;
  int64_t D, F;
  float epsilon;

  int64_t inner() const { return (F + kPanel - 1) / kPanel * kPanel; }
  int64_t outer() const { return (D + kPanel - 1) / kPanel * kPanel; }
};

void run_plain_block(const PlainMlp& mlp, int64_t first, int64_t height, const Block& block) {
  const int64_t D = mlp.D, F = mlp.F, inner = mlp.inner(), outer = mlp.outer();
  for (int64_t i = 0; i < height; ++i) {
    layernorm(mlp.resid_mid + (first + i) * D, mlp.gain, mlp.bias, block.normed.get() + i * D, D,
              mlp.epsilon);
  }
  float* hidden = block.hidden.get();
  panel_product(block.normed.get(), height, D, mlp.w_in, D, inner / kPanel, mlp.b_in, hidden, inner,
                mlp.w_out);
  for (int64_t i = 0; i < height; ++i, hidden += inner) {
    std::copy(hidden, hidden + F, mlp.pre + (first + i) * F);
    gelu(hidden, F);
  }
  panel_product(block.hidden.get(), height, inner, mlp.w_out, F, outer / kPanel, mlp.b_out,
                block.out.get(), outer, mlp.w_in);
  for (int64_t i = 0; i < height; ++i) {
    const float* row = block.out.get() + i * outer;
    std::copy(row, row + D, mlp.out + (first + i) * D);
  }
}

// An MLP on rows [R, D] as it stands: (input of its activation [R, F], output [R, D]).
std::tuple<at::Tensor, at::Tensor> mlp(const at::Tensor& resid_mid, const at::Tensor& gain,
                                       const at::Tensor& bias, const at::Tensor& w_in,
                                       const at::Tensor& b_in, const at::Tensor& w_out,
                                       const at::Tensor& b_out, int64_t F, double epsilon) {
  TORCH_CHECK(resid_mid.dim() == 2, "resid_mid must be [R, D], got ", resid_mid.sizes());
  const int64_t R = resid_mid.size(0), D = resid_mid.size(1);
  check_panels(w_in, D, F, "w_in");
  check_panels(w_out, F, D, "w_out");
  const int64_t inner = w_in.size(0) * kPanel, outer = w_out.size(0) * kPanel;
  TORCH_CHECK(gain.numel() == D && bias.numel() == D && b_in.numel() == inner &&
                  b_out.numel() == outer,
              "gain and bias must be [", D, "], b_in [", inner, "] and b_out [", outer, "], got ",
              gain.sizes(), bias.sizes(), b_in.sizes(), b_out.sizes());
  for (const at::Tensor& given : {resid_mid, gain, bias, b_in, b_out}) {
    TORCH_CHECK(given.scalar_type() == at::kFloat && given.is_contiguous(),
                "resid_mid, gain and biases must be contiguous float32");
  }
  at::Tensor pre = at::empty({R, F}, resid_mid.options()), out = at::empty_like(resid_mid);
  if (R == 0) return {pre, out};
  const PlainMlp work{resid_mid.const_data_ptr<float>(), gain.const_data_ptr<float>(),
                      bias.const_data_ptr<float>(),      w_in.const_data_ptr<float>(),
                      b_in.const_data_ptr<float>(),      w_out.const_data_ptr<float>(),
                      b_out.const_data_ptr<float>(),     pre.mutable_data_ptr<float>(),
                      out.mutable_data_ptr<float>(),     D, F, static_cast<float>(epsilon)};
  in_blocks(R, D, inner, outer, [&](int64_t first, int64_t height, const Block& block) {
    run_plain_block(work, first, height, block);
  });
  return {pre, out};
}

}  // namespace
}  // namespace ioi_fast

TORCH_LIBRARY_FRAGMENT(ioi_fast, library) {
  library.def("panels_supported() -> bool", &ioi_fast::panels_supported);
  library.def("panel_linear(Tensor rows, Tensor panels, Tensor? bias, int width) -> Tensor");
  library.def(
      "mlp_delta(Tensor resid_mid, Tensor pre, Tensor delta, Tensor gain, Tensor w_in, Tensor w_out, "
      "float epsilon, Tensor? index=None) -> Tensor");
  library.def(
      "add_mlp_delta_(Tensor resid_mid, Tensor pre, Tensor(a!) delta, Tensor gain, Tensor w_in, "
      "Tensor w_out, float epsilon) -> Tensor(a!)");
  library.def(
      "mlp(Tensor resid_mid, Tensor gain, Tensor bias, Tensor w_in, Tensor b_in, Tensor w_out, "
      "Tensor b_out, int inner, float epsilon) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(ioi_fast, CPU, library) {
  library.impl("panel_linear", &ioi_fast::panel_linear);
  library.impl("mlp_delta", &ioi_fast::mlp_delta);
  library.impl("add_mlp_delta_", &ioi_fast::add_mlp_delta_);
  library.impl("mlp", &ioi_fast::mlp);
}
