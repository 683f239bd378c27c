// A whole MLP on weights in panels (panels.h): in difference form, and as it stands.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "activations.h"
#include "difference_rows.h"
#include "panel_blocks.h"

namespace ioi_fast {
namespace {

// Words of a block that stay in the second cache.
constexpr int64_t kBlockWords = 3 << 16;  // 768 KB
// Columns of the hidden layer that are there at a time: each part of it goes into the second product
// as soon as it is made.
constexpr int64_t kPart = 3 * kChunk;

// Sizes of an MLP, and its weights in the words of their precision.
template <class Operand>
struct Weights {
  const Word *w_in, *w_out;
  int64_t D, F;

  int64_t outer() const { return (D + kPanel - 1) / kPanel * kPanel; }
  int64_t steps_in() const { return words<Operand>(D); }
  int64_t steps_out() const { return words<Operand>(F); }
};

// What a thread makes of a block of rows: operands of both products, some columns of the hidden
// layer, the output, and one row in fp32.
template <class Operand>
struct Block {
  static constexpr int64_t kHidden = words<Operand>(kPart);
  Scratch normed, hidden, chunk, out, row;
  Block(const Weights<Operand>& mlp, int64_t rows)
      : normed(scratch(rows * mlp.steps_in())),
        hidden(scratch(rows * kHidden)),
        chunk(scratch(rows * kChunk)),
        out(scratch(rows * mlp.outer())),
        row(scratch(mlp.D)) {}
};

// Both products of a block. `activate` turns the columns from `start` on that it finds in the
// chunk [height, kChunk] into those of the activation.
template <class Operand, class Activate>
void multiply(const Weights<Operand>& mlp, const float* b_in, const float* b_out, int64_t height,
              const Block<Operand>& block, const Activate& activate) {
  const int64_t outer = mlp.outer(), width = Block<Operand>::kHidden;
  float* out = block.out.get();
  for (int64_t part = 0; part < mlp.F; part += kPart) {
    const int64_t end = std::min(mlp.F, part + kPart), from = words<Operand>(part);
    const Word* second = mlp.w_out + from * kPanel;
    for (int64_t start = part; start < end; start += kChunk) {
      const int64_t count = std::min(kChunk, end - start);
      const Word* first = mlp.w_in + start * mlp.steps_in();
      const Word* next = start + count < end ? first + kChunk * mlp.steps_in() : second;
      const int64_t panels = (count + kPanel - 1) / kPanel;
      panel_product<Operand>(block.normed.get(), height, mlp.steps_in(), first, mlp.steps_in(),
                             panels, b_in ? b_in + start : nullptr, block.chunk.get(), kChunk, next);
      activate(start, count, block.chunk.get());
      float* hidden = block.hidden.get() + words<Operand>(start - part);
      for (int64_t i = 0; i < height; ++i) {
        Operand::store(block.chunk.get() + i * kChunk, count, hidden + i * width);
      }
    }
    const Word* next = end < mlp.F ? mlp.w_in + end * mlp.steps_in() : mlp.w_in;
    panel_part<Operand>(block.hidden.get(), height, width,
                        {second, mlp.steps_out(), words<Operand>(end - part), outer / kPanel, next},
                        part > 0 ? Start{out, outer} : Start{b_out, 0}, out, outer);
  }
}

// Calls run(first row, rows, block) for blocks of rows, shared by the threads.
template <class Operand, class Run>
void in_blocks(const Weights<Operand>& mlp, int64_t rows, const Run& run) {
  const int64_t fit = kBlockWords / (mlp.steps_in() + Block<Operand>::kHidden + kChunk + mlp.outer());
  const int64_t most = std::clamp<int64_t>(fit / kStrip * kStrip, kStrip, kMostRows);
  const int64_t blocks = blocks_of(rows, most);
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    const Block<Operand> block(mlp, (rows + blocks - 1) / blocks);
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = rows * b / blocks;
      run(first, rows * (b + 1) / blocks - first, block);
    }
  });
}

struct Rows {
  const float *resid_mid, *pre, *delta, *gain;
  const int64_t* index;  // base row of each row, or null
  float* out;
  int64_t P, N, D, F;
  float epsilon;
  bool add;  // the change to delta itself

  // Rows that share a base row stand together: without an index all variants of base row 0 come
  // first, then those of base row 1.
  int64_t base(int64_t row) const { return index ? index[row] : row / P; }
  int64_t place(int64_t row) const { return index ? row * D : (row % P * N + row / P) * D; }
  bool is_new(int64_t row, int64_t first) const {
    return row == first || base(row) != base(row - 1);
  }
};

template <class Operand>
void normalise(const Rows& rows, int64_t first, int64_t height, const Block<Operand>& block) {
  RowStatistics statistics{};
  float* normed = block.row.get();
  for (int64_t i = 0; i < height; ++i) {
    const float* base = rows.resid_mid + rows.base(first + i) * rows.D;
    if (rows.is_new(first + i, first)) statistics = row_statistics(base, rows.D, rows.epsilon);
    layernorm_row(base, statistics, rows.delta + rows.place(first + i), rows.gain, normed, rows.D,
                  rows.epsilon);
    Operand::store(normed, rows.D, block.normed.get() + i * words<Operand>(rows.D));
  }
}

template <class Operand, class Activation>
void run_block(const Rows& rows, const Weights<Operand>& mlp, int64_t first, int64_t height,
               const Block<Operand>& block) {
  normalise(rows, first, height, block);
  typename Activation::Base constants;
  multiply(mlp, nullptr, nullptr, height, block, [&](int64_t start, int64_t count, float* chunk) {
    for (int64_t i = 0; i < height; ++i) {
      if (rows.is_new(first + i, first)) {
        Activation::base(rows.pre + rows.base(first + i) * rows.F + start, count, &constants);
      }
      Activation::change(&constants, chunk + i * kChunk, count);
    }
  });
  for (int64_t i = 0; i < height; ++i) {
    const float* row = block.out.get() + i * mlp.outer();
    const int64_t place = rows.place(first + i);
    if (rows.add) {
      for (int64_t d = 0; d < rows.D; ++d) rows.out[place + d] = rows.delta[place + d] + row[d];
    } else {
      std::copy(row, row + rows.D, rows.out + place);
    }
  }
}

template <class Operand, class Activation>
void run_rows(const Rows& rows, const at::Tensor& w_in, const at::Tensor& w_out) {
  const Weights<Operand> mlp{words_of(w_in), words_of(w_out), rows.D, rows.F};
  in_blocks(mlp, rows.P * rows.N, [&](int64_t first, int64_t height, const Block<Operand>& block) {
    run_block<Operand, Activation>(rows, mlp, first, height, block);
  });
}

void check_rows(const at::Tensor& resid_mid, const at::Tensor& pre, const at::Tensor& delta,
                const at::Tensor& gain, const std::optional<at::Tensor>& index) {
  const int64_t N = resid_mid.size(0), D = resid_mid.size(-1);
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
}

// LayerNorm, both products and the activation between them, without leaving the block's cache. `out` may
// be delta: a block has read its rows before it writes them.
void run_mlp(const at::Tensor& resid_mid, const at::Tensor& pre, const at::Tensor& delta,
             const at::Tensor& gain, const at::Tensor& w_in, const at::Tensor& w_out,
             double epsilon, const std::optional<at::Tensor>& index, c10::string_view activation,
             bool rounded, at::Tensor& out, bool add) {
  check_rows(resid_mid, pre, delta, gain, index);
  const int64_t N = resid_mid.size(0), D = resid_mid.size(1), F = pre.size(1);
  check_panels(w_in, D, F, "w_in");
  check_panels(w_out, F, D, "w_out");
  TORCH_CHECK(in_bf16(w_in) == in_bf16(w_out), "w_in and w_out must be of one precision, got ",
              w_in.scalar_type(), " and ", w_out.scalar_type());
  const at::Tensor base = resid_mid.contiguous(), before = pre.contiguous();
  const at::Tensor change = delta.contiguous(), gains = gain.contiguous();
  const int64_t count = change.numel() / std::max<int64_t>(1, D);
  const Rows rows{base.const_data_ptr<float>(), before.const_data_ptr<float>(),
                  change.const_data_ptr<float>(), gains.const_data_ptr<float>(),
                  index ? index->const_data_ptr<int64_t>() : nullptr,
                  out.mutable_data_ptr<float>(), index ? count : count / std::max<int64_t>(1, N),
                  index ? 1 : N, D, F,
                  static_cast<float>(epsilon), add};
  with_activation(activation, [&](auto one) {
    with_operand(w_in, rounded, [&](auto operand) {
      run_rows<decltype(operand), decltype(one)>(rows, w_in, w_out);
    });
  });
}

at::Tensor mlp_delta(const at::Tensor& resid_mid, const at::Tensor& pre, const at::Tensor& delta,
                     const at::Tensor& gain, const at::Tensor& w_in, const at::Tensor& w_out,
                     double epsilon, const std::optional<at::Tensor>& index,
                     c10::string_view activation, bool rounded) {
  at::Tensor out = at::empty(delta.sizes(), delta.options());
  run_mlp(resid_mid, pre, delta, gain, w_in, w_out, epsilon, index, activation, rounded, out, false);
  return out;
}

at::Tensor& add_mlp_delta_(const at::Tensor& resid_mid, const at::Tensor& pre, at::Tensor& delta,
                           const at::Tensor& gain, const at::Tensor& w_in, const at::Tensor& w_out,
                           double epsilon, c10::string_view activation, bool rounded) {
  TORCH_CHECK(delta.is_contiguous(), "delta must be contiguous, it is overwritten");
  run_mlp(resid_mid, pre, delta, gain, w_in, w_out, epsilon, std::nullopt, activation, rounded, delta, true);
  return delta;
}

struct PlainRows {
  const float *resid_mid, *gain, *bias, *b_in, *b_out;
  float *pre, *out;
  float epsilon;
};

template <class Activation>
void run_plain_block(const PlainRows& rows, const Weights<Fp32>& mlp, int64_t first, int64_t height,
                     const Block<Fp32>& block) {
  const int64_t D = mlp.D, F = mlp.F;
  for (int64_t i = 0; i < height; ++i) {
    layernorm(rows.resid_mid + (first + i) * D, rows.gain, rows.bias, block.normed.get() + i * D, D,
              rows.epsilon);
  }
  multiply(mlp, rows.b_in, rows.b_out, height, block,
           [&](int64_t start, int64_t count, float* chunk) {
             for (int64_t i = 0; i < height; ++i, chunk += kChunk) {
               std::copy(chunk, chunk + count, rows.pre + (first + i) * F + start);
               Activation::apply(chunk, count);
             }
           });
  for (int64_t i = 0; i < height; ++i) {
    const float* row = block.out.get() + i * mlp.outer();
    std::copy(row, row + D, rows.out + (first + i) * D);
  }
}

// An MLP on rows [R, D] as it stands: (input of its activation [R, F], output [R, D]).
std::tuple<at::Tensor, at::Tensor> mlp(const at::Tensor& resid_mid, const at::Tensor& gain,
                                       const at::Tensor& bias, const at::Tensor& w_in,
                                       const at::Tensor& b_in, const at::Tensor& w_out,
                                       const at::Tensor& b_out, int64_t F, double epsilon,
                                       c10::string_view activation) {
  TORCH_CHECK(resid_mid.dim() == 2, "resid_mid must be [R, D], got ", resid_mid.sizes());
  const int64_t R = resid_mid.size(0), D = resid_mid.size(1);
  check_panels(w_in, D, F, "w_in");
  check_panels(w_out, F, D, "w_out");
  const int64_t inner = w_in.size(0) * kPanel, outer = w_out.size(0) * kPanel;
  TORCH_CHECK(gain.numel() == D && bias.numel() == D && b_in.numel() == inner &&
                  b_out.numel() == outer,
              "gain and bias must be [", D, "], b_in [", inner, "] and b_out [", outer, "], got ",
              gain.sizes(), bias.sizes(), b_in.sizes(), b_out.sizes());
  for (const at::Tensor& given : {resid_mid, gain, bias, b_in, b_out, w_in, w_out}) {
    TORCH_CHECK(given.scalar_type() == at::kFloat && given.is_contiguous(),
                "resid_mid, gain, biases and weights must be contiguous float32");
  }
  at::Tensor pre = at::empty({R, F}, resid_mid.options()), out = at::empty_like(resid_mid);
  const Weights<Fp32> weights{words_of(w_in), words_of(w_out), D, F};
  const PlainRows rows{resid_mid.const_data_ptr<float>(), gain.const_data_ptr<float>(),
                       bias.const_data_ptr<float>(),      b_in.const_data_ptr<float>(),
                       b_out.const_data_ptr<float>(),     pre.mutable_data_ptr<float>(),
                       out.mutable_data_ptr<float>(),     static_cast<float>(epsilon)};
  with_activation(activation, [&](auto one) {
    in_blocks(weights, R, [&](int64_t first, int64_t height, const Block<Fp32>& block) {
      run_plain_block<decltype(one)>(rows, weights, first, height, block);
    });
  });
  return {pre, out};
}

}  // namespace
}  // namespace ioi_fast

TORCH_LIBRARY_FRAGMENT(ioi_fast, library) {
  library.def(
      "mlp_delta(Tensor resid_mid, Tensor pre, Tensor delta, Tensor gain, Tensor w_in, Tensor w_out, "
      "float epsilon, Tensor? index=None, str activation=\"gelu_new\", bool rounded=False) -> Tensor");
  library.def(
      "add_mlp_delta_(Tensor resid_mid, Tensor pre, Tensor(a!) delta, Tensor gain, Tensor w_in, "
      "Tensor w_out, float epsilon, str activation=\"gelu_new\", bool rounded=False) -> Tensor(a!)");
  library.def(
      "mlp(Tensor resid_mid, Tensor gain, Tensor bias, Tensor w_in, Tensor b_in, Tensor w_out, "
      "Tensor b_out, int inner, float epsilon, str activation=\"gelu_new\") -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(ioi_fast, CPU, library) {
  library.impl("mlp_delta", &ioi_fast::mlp_delta);
  library.impl("add_mlp_delta_", &ioi_fast::add_mlp_delta_);
  library.impl("mlp", &ioi_fast::mlp);
}
