// The difference forms of LayerNorm and GELU for CPUs: one pass over memory each.
//
// Same meaning as in reference.py, same formulas as in the torch form. Base rows [N, ...] are shared
// by all variants of delta [P, N, ...]: what depends on them alone is computed once per base row.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "vector_math.h"

// One body, compiled for each instruction set; the loader picks the best that the CPU has.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(IOI_FAST_PORTABLE)
#define EVERY_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EVERY_CPU
#endif

namespace ioi_fast {
namespace {

constexpr int64_t kChunk = 256;           // base constants of one chunk stay in the first cache
constexpr float kLinear = 1.5957691216057308f;  // 2·sqrt(2/pi)
constexpr float kCubic = kLinear * 0.044715f;
constexpr float kSaturated = 40.0f;  // sigma(±40) is 0 or 1 for every purpose

// What gelu_new's difference needs of a base value x, by columns of a chunk.
struct GeluBase {
  float x[kChunk], first[kChunk], second[kChunk], excess[kChunk], a[kChunk];
  float sigma[kChunk], opposite[kChunk];
};

EVERY_CPU void gelu_base(const float* __restrict pre, int64_t count, GeluBase* __restrict base) {
  for (int64_t i = 0; i < count; ++i) {
    const float x = pre[i];
    const float exact = x * (kLinear + kCubic * x * x);
    const float a = clamp(exact, -kSaturated, kSaturated);
    const float e = exponential(-a).exp;  // sigma(a) = 1/(1 + exp(-a)), sigma(-a) = exp(-a)·sigma(a)
    const float sigma = 1.0f / (1.0f + e);
    base->x[i] = x;
    base->first[i] = kLinear + 3.0f * kCubic * x * x;
    base->second[i] = 3.0f * kCubic * x;
    base->excess[i] = exact - a;
    base->a[i] = a;
    base->sigma[i] = sigma;
    base->opposite[i] = e * sigma;
  }
}

// delta·sigma(a) + (x + delta)·change, where change = sigma(a + b) - sigma(a) =
// sigma(a)·sigma(-a)·(exp(b) - 1)/(sigma(-a) + sigma(a)·exp(b)): no cancellation at any size of b.
EVERY_CPU void gelu_row(const GeluBase* __restrict base, const float* __restrict delta,
                        float* __restrict out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float d = delta[i];
    const float moved = d * (base->first[i] + d * (base->second[i] + kCubic * d)) + base->excess[i];
    const float b = clamp(moved, -kSaturated - base->a[i], kSaturated - base->a[i]);
    const Exponential e = exponential(b);
    const float sigma = base->sigma[i], opposite = base->opposite[i];
    const float change = sigma * opposite * e.expm1 / (opposite + sigma * e.exp);
    out[i] = d * sigma + (base->x[i] + d) * change;
  }
}

struct RowStatistics {
  float mean, r;
};

EVERY_CPU RowStatistics row_statistics(const float* __restrict x, int64_t D, float epsilon) {
  float total = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < D; ++i) total += x[i];
  const float mean = total / static_cast<float>(D);
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < D; ++i) squares += (x[i] - mean) * (x[i] - mean);
  return {mean, 1.0f / __builtin_sqrtf(squares / static_cast<float>(D) + epsilon)};
}

// With c = x - mean(x) and w the change of the variance, r' = r·(1 + f), f = -u/(s·(1 + s)),
// u = w·r², s = sqrt(1 + u).
EVERY_CPU void layernorm_row(const float* __restrict x, RowStatistics base,
                             const float* __restrict delta, const float* __restrict gain,
                             float* __restrict out, int64_t D) {
  float total = 0.0f, change = 0.0f;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < D; ++i) total += delta[i];
  const float mean = total / static_cast<float>(D);
#pragma omp simd reduction(+ : change)
  for (int64_t i = 0; i < D; ++i) {
    const float move = delta[i] - mean;
    change += (2.0f * (x[i] - base.mean) + move) * move;
  }
  const float u = change / static_cast<float>(D) * base.r * base.r;
  const float s = __builtin_sqrtf(1.0f + u);
  const float f = -u / (s * (1.0f + s));
  const float scale = base.r * (1.0f + f), shift = base.r * f;
  for (int64_t i = 0; i < D; ++i) {
    out[i] = gain[i] * ((delta[i] - mean) * scale + (x[i] - base.mean) * shift);
  }
}

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

at::Tensor gelu_delta(const at::Tensor& pre, const at::Tensor& delta) {
  check(pre, delta);
  const at::Tensor base = pre.contiguous(), change = delta.contiguous();
  at::Tensor out = at::empty_like(change);
  const int64_t N = base.size(0), F = base.size(1), chunks = (F + kChunk - 1) / kChunk;
  if (change.numel() == 0) return out;
  const int64_t P = change.numel() / (N * F);
  const float* x = base.const_data_ptr<float>();
  const float* d = change.const_data_ptr<float>();
  float* y = out.mutable_data_ptr<float>();
  at::parallel_for(0, N * chunks, 1, [&](int64_t begin, int64_t end) {
    GeluBase constants;
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t n = unit / chunks, start = unit % chunks * kChunk;
      const int64_t count = F - start < kChunk ? F - start : kChunk;
      gelu_base(x + n * F + start, count, &constants);
      for (int64_t p = 0; p < P; ++p) {
        const int64_t at = (p * N + n) * F + start;
        gelu_row(&constants, d + at, y + at, count);
      }
    }
  });
  return out;
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
  at::parallel_for(0, N, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const RowStatistics statistics = row_statistics(row + n * D, D, static_cast<float>(epsilon));
      for (int64_t p = 0; p < P; ++p) {
        const int64_t at = (p * N + n) * D;
        layernorm_row(row + n * D, statistics, d + at, g, y + at, D);
      }
    }
  });
  return out;
}

}  // namespace
}  // namespace ioi_fast

TORCH_LIBRARY(ioi_fast, library) {
  library.def("gelu_delta(Tensor pre, Tensor delta) -> Tensor");
  library.def("layernorm_delta(Tensor x, Tensor delta, Tensor gain, float epsilon) -> Tensor");
}

TORCH_LIBRARY_IMPL(ioi_fast, CPU, library) {
  library.impl("gelu_delta", &ioi_fast::gelu_delta);
  library.impl("layernorm_delta", &ioi_fast::layernorm_delta);
}
