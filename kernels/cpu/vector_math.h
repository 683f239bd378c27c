// What loops over floats need to be vectorised by the compiler: a way to compile them for each
// instruction set, and exp and exp - 1 in plain arithmetic.
#pragma once

#include <cstdint>
#include <cstring>

// One body, compiled for each instruction set; the loader picks the best that the CPU has. Builds for
// AVX-512 alone need no others.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(IOI_FAST_PORTABLE) && !defined(__AVX512F__)
#define EVERY_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EVERY_CPU
#endif

namespace ioi_fast {

struct Exponential {
  float exp;
  float expm1;
};

// Both at once, for |x| <= 80: x = n·ln 2 + r, |r| <= ln 2 / 2, exp(x) - 1 = 2^n·p + (2^n - 1) with
// p = exp(r) - 1 by its Taylor polynomial (error below 1e-8 of p).
inline __attribute__((always_inline)) Exponential exponential(float x) {
  const float n = __builtin_rintf(x * 1.44269504088896341f);
  float r = x - n * 0.693145751953125f;  // ln 2 in two parts: the first is exact in 12 bits
  r = r - n * 1.428606765330187e-6f;
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r * r + r;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return {power * p + power, power * p + (power - 1.0f)};
}

inline __attribute__((always_inline)) float clamp(float x, float low, float high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

}  // namespace ioi_fast
