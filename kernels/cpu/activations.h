// Activations on rows, as they stand and in difference form.
//
// Each has `Base`, what its difference needs of base values by columns of a chunk and all variants
// share; `base`, which makes it; `change`, which turns changes of the input into those of the output;
// and `apply`, itself. Same meaning as in reference.py. No change comes from two numbers that are
// nearly equal, and what is not a number stays so.
#pragma once

#include <c10/util/Exception.h>

#include <cstdint>
#include <string_view>

#include "vector_math.h"

namespace ioi_fast {
namespace {

constexpr int64_t kChunk = 256;           // base constants of one chunk stay in the first cache
constexpr float kLinear = 1.5957691216057308f;  // 2·sqrt(2/pi)
constexpr float kCubic = kLinear * 0.044715f;
constexpr float kSaturated = 40.0f;  // sigma(±40) is 0 or 1 for every purpose

// gelu_new(x) = x·sigma(a), a = kLinear·x + kCubic·x^3.
struct TanhGelu {
  struct Base {
    float x[kChunk], first[kChunk], second[kChunk], excess[kChunk], a[kChunk];
    float sigma[kChunk], opposite[kChunk];
  };

  EVERY_CPU static void base(const float* __restrict pre, int64_t count, Base* __restrict base) {
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
  EVERY_CPU static void change(const Base* __restrict base, float* __restrict delta, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const float d = delta[i];
      const float moved = d * (base->first[i] + d * (base->second[i] + kCubic * d)) + base->excess[i];
      const float b = clamp(moved, -kSaturated - base->a[i], kSaturated - base->a[i]);
      const Exponential e = exponential(b);
      const float sigma = base->sigma[i], opposite = base->opposite[i];
      const float change = sigma * opposite * e.expm1 / (opposite + sigma * e.exp);
      delta[i] = d * sigma + (base->x[i] + d) * change;
    }
  }

  EVERY_CPU static void apply(float* __restrict row, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const float x = row[i];
      const float a = clamp(x * (kLinear + kCubic * x * x), -kSaturated, kSaturated);
      row[i] = x / (1.0f + exponential(-a).exp);
    }
  }
};

// exp(-x²/2).
inline __attribute__((always_inline)) float bell(float x) {
  return exponential(clamp(-0.5f * x * x, -80.0f, 0.0f)).exp;
}

// The normal distribution below -|x|, to 4e-7 of itself: exp(-x²/2) times a polynomial in
// t = 1/(1 + 0.35·|x|), which was fitted to Mills' ratio (3e-8 of it).
inline __attribute__((always_inline)) float normal_tail(float x) {
  const float t = 1.0f / (1.0f + 0.35f * __builtin_fabsf(x));
  float p = -2.909520594e-02f;
  p = p * t + 1.437200728e-01f;
  p = p * t - 2.551833170e-01f;
  p = p * t + 1.585535213e-01f;
  p = p * t - 2.267159649e-02f;
  p = p * t + 1.053172363e-01f;
  p = p * t + 1.198826870e-01f;
  p = p * t + 1.398547585e-01f;
  p = p * t + 1.396218277e-01f;
  return bell(x) * (p * t);
}

// The integral of the normal density over d around m, for |d| <= 1 and |d·m| <= 1: its Taylor series
// around m, whose terms are h^n·He_n(m)/(n + 1)! for even n and h = d/2 (Hermite's polynomials, by
// their recurrence; what is left out is 3e-8 of it).
inline __attribute__((always_inline)) float normal_between(float m, float d) {
  const float h = 0.5f * d, first = m * h, q = h * h;
  const float second = first * first - q;
  const float third = first * second - 2.0f * q * first;
  const float fourth = first * third - 3.0f * q * second;
  const float fifth = first * fourth - 4.0f * q * third;
  const float sixth = first * fifth - 5.0f * q * fourth;
  const float seventh = first * sixth - 6.0f * q * fifth;
  const float eighth = first * seventh - 7.0f * q * sixth;
  const float rest = second * (1.0f / 6.0f) + fourth * (1.0f / 120.0f) + sixth * (1.0f / 5040.0f) +
                     eighth * (1.0f / 362880.0f);
  const float height = 0.3989422804014327f * d * bell(m);
  return height + height * rest;
}

// gelu(x) = x·P(x), P the normal distribution.
struct ErfGelu {
  struct Base {
    float x[kChunk], below[kChunk], above[kChunk];  // and P(x), P(-x)
  };

  EVERY_CPU static void base(const float* __restrict pre, int64_t count, Base* __restrict base) {
    for (int64_t i = 0; i < count; ++i) {
      const float x = pre[i], tail = normal_tail(x);
      base->x[i] = x;
      base->below[i] = x < 0.0f ? tail : 1.0f - tail;
      base->above[i] = x < 0.0f ? 1.0f - tail : tail;
    }
  }

  // delta·P(x) + (x + delta)·change, where change = P(x + delta) - P(x) is the integral of the
  // density; where that is a large share of either, the difference of what lies outside on the side
  // to which both are.
  EVERY_CPU static void change(const Base* __restrict base, float* __restrict delta, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const float d = delta[i], x = base->x[i], y = x + d, m = x + 0.5f * d;
      const float size = __builtin_fabsf(d), share = size * __builtin_fabsf(m);
      const float near = normal_between(m, d), tail = normal_tail(y);
      const float below = (y < 0.0f ? tail : 1.0f - tail) - base->below[i];
      const float above = base->above[i] - (y < 0.0f ? 1.0f - tail : tail);
      const float far = m < 0.0f ? below : above;
      const float change = (size > share ? size : share) < 1.0f ? near : far;
      delta[i] = d * base->below[i] + y * change;
    }
  }

  EVERY_CPU static void apply(float* __restrict row, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const float x = row[i], tail = normal_tail(x);
      row[i] = x * (x < 0.0f ? tail : 1.0f - tail);
    }
  }
};

struct Relu {
  struct Base {
    float x[kChunk];
  };

  static void base(const float* __restrict pre, int64_t count, Base* __restrict base) {
    for (int64_t i = 0; i < count; ++i) base->x[i] = pre[i];
  }

  // From above zero the change itself, or down to zero; from below what is above zero.
  EVERY_CPU static void change(const Base* __restrict base, float* __restrict delta, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const float d = delta[i], x = base->x[i], y = x + d;
      const float from_above = d < -x ? -x : d, from_below = y < 0.0f ? 0.0f : y;
      delta[i] = x > 0.0f ? from_above : from_below;
    }
  }

  EVERY_CPU static void apply(float* __restrict row, int64_t count) {
    for (int64_t i = 0; i < count; ++i) row[i] = row[i] < 0.0f ? 0.0f : row[i];
  }
};

// Calls run(activation) with the one of a name.
template <class Run>
void with_activation(std::string_view name, const Run& run) {
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") {
    run(TanhGelu{});
  } else if (name == "gelu") {
    run(ErfGelu{});
  } else {
    TORCH_CHECK(name == "relu",
                "activation must be gelu_new, gelu_pytorch_tanh, gelu or relu, got ", name);
    run(Relu{});
  }
}

}  // namespace
}  // namespace ioi_fast
