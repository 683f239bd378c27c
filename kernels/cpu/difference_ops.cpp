// The difference forms of LayerNorm, activations and the read-out for CPUs: one pass over memory each.
//
// Base rows [N, ...] are shared by all variants of delta [P, N, ...].

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "activations.h"
#include "difference_rows.h"

namespace ioi_fast {
namespace {

void check(const at::Tensor& base, const at::Tensor& delta) {
  TORCH_CHECK(base.scalar_type() == at::kFloat && delta.scalar_type() == at::kFloat,
              "base and delta must be float32, got ", base.scalar_type(), " and ",
              delta.scalar_type());
  TORCH_CHECK(base.dim() == 2, "base must be [N, width], got ", base.sizes());
  const int64_t dim = delta.dim();
  TORCH_CHECK(dim >= 2 && delta.size(dim - 1) == base.size(1) && delta.size(dim - 2) == base.size(0),
              "delta must be [..., N, width] for a base of ", base.sizes(), ", got ",
              delta.sizes());
}

template <class Activation>
void change_rows(const float* x, float* d, int64_t P, int64_t N, int64_t F) {
  const int64_t chunks = (F + kChunk - 1) / kChunk;
  at::parallel_for(0, P > 0 ? N * chunks : 0, 1, [&](int64_t begin, int64_t end) {
    typename Activation::Base constants;
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t n = unit / chunks, start = unit % chunks * kChunk;
      const int64_t count = F - start < kChunk ? F - start : kChunk;
      Activation::base(x + n * F + start, count, &constants);
      for (int64_t p = 0; p < P; ++p) Activation::change(&constants, d + (p * N + n) * F + start, count);
    }
  });
}

// In place: the hidden layer is the widest tensor of a wave, and a second one would push it out of
// the cache between two products.
at::Tensor& gelu_delta_(const at::Tensor& pre, at::Tensor& delta, c10::string_view activation) {
  check(pre, delta);
  TORCH_CHECK(delta.is_contiguous(), "delta must be contiguous, it is overwritten");
  const at::Tensor base = pre.contiguous();
  const int64_t N = base.size(0), F = base.size(1), P = delta.numel() / std::max<int64_t>(1, N * F);
  const float* x = base.const_data_ptr<float>();
  float* d = delta.mutable_data_ptr<float>();
  with_activation(activation, [&](auto one) { change_rows<decltype(one)>(x, d, P, N, F); });
  return delta;
}

at::Tensor layernorm_delta(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& gain,
                           double epsilon) {
  check(x, delta);
  const at::Tensor base = x.contiguous(), change = delta.contiguous(), gains = gain.contiguous();
  TORCH_CHECK(gains.scalar_type() == at::kFloat && gains.numel() == base.size(1),
              "gain must be float32 [", base.size(1), "], got ", gains.sizes());
  at::Tensor out = at::empty_like(change);
  const int64_t N = base.size(0), D = base.size(1);
  if (change.numel() == 0) return out;
  const int64_t P = change.numel() / (N * D);
  const float* row = base.const_data_ptr<float>();
  const float* d = change.const_data_ptr<float>();
  const float* g = gains.const_data_ptr<float>();
  float* y = out.mutable_data_ptr<float>();
  const float e = static_cast<float>(epsilon);
  at::parallel_for(0, N, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const RowStatistics statistics = row_statistics(row + n * D, D, e);
      for (int64_t p = 0; p < P; ++p) {
        const int64_t at = (p * N + n) * D;
        layernorm_row(row + n * D, statistics, d + at, g, y + at, D, e);
      }
    }
  });
  return out;
}

// One number a row: what the normalised residual is along the row's own direction.
at::Tensor readout_delta(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& gain,
                         double epsilon, const at::Tensor& direction) {
  check(x, delta);
  const at::Tensor base = x.contiguous(), change = delta.contiguous(), gains = gain.contiguous();
  const int64_t N = base.size(0), D = base.size(1);
  TORCH_CHECK(gains.scalar_type() == at::kFloat && gains.numel() == D, "gain must be float32 [", D,
              "], got ", gains.sizes());
  TORCH_CHECK(direction.scalar_type() == at::kFloat && direction.sizes() == base.sizes(),
              "direction must be float32 ", base.sizes(), ", got ", direction.sizes());
  const at::Tensor directions = direction.contiguous();
  at::Tensor out = at::empty(change.sizes().slice(0, change.dim() - 1), change.options());
  if (change.numel() == 0) return out;
  const int64_t P = change.numel() / (N * D);
  const float* row = base.const_data_ptr<float>();
  const float* d = change.const_data_ptr<float>();
  const float* g = gains.const_data_ptr<float>();
  const float* along = directions.const_data_ptr<float>();
  float* y = out.mutable_data_ptr<float>();
  const float e = static_cast<float>(epsilon);
  at::parallel_for(0, N, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> weight(D);
    for (int64_t n = begin; n < end; ++n) {
      const ReadingBase reading = reading_base(row + n * D, g, along + n * D, weight.data(), D, e);
      for (int64_t p = 0; p < P; ++p) {
        y[p * N + n] = reading_row(row + n * D, reading, weight.data(), d + (p * N + n) * D, D, e);
      }
    }
  });
  return out;
}

}  // namespace
}  // namespace ioi_fast

TORCH_LIBRARY(ioi_fast, library) {
  library.def(
      "gelu_delta_(Tensor pre, Tensor(a!) delta, str activation=\"gelu_new\") -> Tensor(a!)");
  library.def("layernorm_delta(Tensor x, Tensor delta, Tensor gain, float epsilon) -> Tensor");
  library.def(
      "readout_delta(Tensor x, Tensor delta, Tensor gain, float epsilon, Tensor direction) -> Tensor");
}

TORCH_LIBRARY_IMPL(ioi_fast, CPU, library) {
  library.impl("gelu_delta_", &ioi_fast::gelu_delta_);
  library.impl("layernorm_delta", &ioi_fast::layernorm_delta);
  library.impl("readout_delta", &ioi_fast::readout_delta);
}
