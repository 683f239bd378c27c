// LayerNorm, its difference form and that of the read-out on single rows.
//
// Same meaning as in reference.py, same formulas as in the torch form. What depends on the base row
// alone is computed once and shared by all variants.
#pragma once

#include <cstdint>

#include "vector_math.h"

namespace ioi_fast {
namespace {

constexpr float kCancelled = -0.5f;  // relative change of a variance from which delta cancels x

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

EVERY_CPU void layernorm(const float* __restrict x, const float* __restrict gain,
                         const float* __restrict bias, float* __restrict out, int64_t D,
                         float epsilon) {
  const RowStatistics row = row_statistics(x, D, epsilon);
  for (int64_t i = 0; i < D; ++i) out[i] = (x[i] - row.mean) * row.r * gain[i] + bias[i];
}

// Where delta cancels most of x the variance does not follow from u = w·r², which is near -1: both
// norms are taken and subtracted, and the result is as large as they are.
EVERY_CPU void layernorm_subtracted(const float* __restrict x, RowStatistics base,
                                    const float* __restrict delta, const float* __restrict gain,
                                    float* __restrict out, int64_t D, float epsilon) {
  for (int64_t i = 0; i < D; ++i) out[i] = x[i] + delta[i];
  const RowStatistics sum = row_statistics(out, D, epsilon);
  for (int64_t i = 0; i < D; ++i) {
    out[i] = gain[i] * ((out[i] - sum.mean) * sum.r - (x[i] - base.mean) * base.r);
  }
}

// With c = x - mean(x) and w the change of the variance, r' = r/s = r·(1 + f), s = sqrt(1 + u),
// u = w·r², f = -u/(s·(1 + s)).
EVERY_CPU void layernorm_row(const float* __restrict x, RowStatistics base,
                             const float* __restrict delta, const float* __restrict gain,
                             float* __restrict out, int64_t D, float epsilon) {
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
  if (!(u > kCancelled)) {
    layernorm_subtracted(x, base, delta, gain, out, D, epsilon);
    return;
  }
  const float s = __builtin_sqrtf(1.0f + u);
  const float f = -u / (s * (1.0f + s));
  const float scale = base.r / s, shift = base.r * f;
  for (int64_t i = 0; i < D; ++i) {
    out[i] = gain[i] * ((delta[i] - mean) * scale + (x[i] - base.mean) * shift);
  }
}

// What a read-out along a direction needs of the base row: w = gain·direction, and its
// product with the centred row.
struct ReadingBase {
  RowStatistics row;
  float along;
};

EVERY_CPU ReadingBase reading_base(const float* __restrict x, const float* __restrict gain,
                                   const float* __restrict direction, float* __restrict weight,
                                   int64_t D, float epsilon) {
  const RowStatistics row = row_statistics(x, D, epsilon);
  float along = 0.0f;
#pragma omp simd reduction(+ : along)
  for (int64_t i = 0; i < D; ++i) {
    weight[i] = gain[i] * direction[i];
    along += weight[i] * (x[i] - row.mean);
  }
  return {row, along};
}

// The sum of layernorm_row's output times the direction, without writing that output.
EVERY_CPU float reading_row(const float* __restrict x, ReadingBase base,
                            const float* __restrict weight, const float* __restrict delta, int64_t D,
                            float epsilon) {
  float total = 0.0f, change = 0.0f, along = 0.0f;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < D; ++i) total += delta[i];
  const float mean = total / static_cast<float>(D);
#pragma omp simd reduction(+ : change, along)
  for (int64_t i = 0; i < D; ++i) {
    const float move = delta[i] - mean;
    change += (2.0f * (x[i] - base.row.mean) + move) * move;
    along += weight[i] * move;
  }
  const float r = base.row.r, u = change / static_cast<float>(D) * r * r;
  if (u > kCancelled) {
    const float s = __builtin_sqrtf(1.0f + u);
    return along * (r / s) - base.along * r * (u / (s * (1.0f + s)));
  }
  float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < D; ++i) sum += x[i] + delta[i];
  const float middle = sum / static_cast<float>(D);
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < D; ++i) {
    const float centred = (x[i] + delta[i]) - middle;
    squares += centred * centred;
  }
  const float new_r = 1.0f / __builtin_sqrtf(squares / static_cast<float>(D) + epsilon);
  float out = 0.0f;
#pragma omp simd reduction(+ : out)
  for (int64_t i = 0; i < D; ++i) {
    out += weight[i] * (((x[i] + delta[i]) - middle) * new_r - (x[i] - base.row.mean) * r);
  }
  return out;
}

}  // namespace
}  // namespace ioi_fast
