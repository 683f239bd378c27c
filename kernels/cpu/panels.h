// Matrix products with weights in panels: [columns / 32][K][32], so that a step over k reads one
// line of memory after another.
//
// A strip of up to 14 rows by one panel is held in registers (28 of the 32 of AVX-512) over all of
// k, while the next panel is fetched into the second cache. Every output is one sum in the order of
// k: how rows are cut into blocks or shared by threads does not change a bit of it.
#pragma once

#include <cstdint>

// Only the strips are written for wide registers; elsewhere they compile to what the CPU has, and
// panels_supported() says that oneDNN is the better choice.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(IOI_FAST_PORTABLE)
#define IOI_FAST_WIDE __attribute__((target("avx512f,prefer-vector-width=512")))
#else
#define IOI_FAST_WIDE
#endif

namespace ioi_fast {
namespace {

constexpr int64_t kPanel = 32;  // columns
constexpr int kStrip = 14;      // rows
constexpr int64_t kLine = 16;   // floats of a cache line
// Steps of k at a time: the rows of a strip stay in the first cache while all panels go by.
constexpr int64_t kDepth = 768;

typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));

struct Strip {
  const float* rows;  // [strip, K], `stride` apart
  int64_t stride;
  const float* panel;  // [K, 32]
  int64_t K;
  const float* start;  // what is added to, [strip, 32], `start_stride` apart, or null
  int64_t start_stride;
  float* out;  // [strip, 32], `out_stride` apart
  int64_t out_stride;
  const float* ahead;  // what to fetch meanwhile: K lines
};

template <int ROWS>
IOI_FAST_WIDE void strip_product(const Strip& strip) {
  Lanes sums[ROWS][2];
#pragma GCC unroll 14
  for (int i = 0; i < ROWS; ++i) {
    for (int half = 0; half < 2; ++half) {
      const Lanes zero = {};
      const float* start = strip.start + i * strip.start_stride + half * kLine;
      sums[i][half] = strip.start ? *reinterpret_cast<const Lanes*>(start) : zero;
    }
  }
  const float* rows = strip.rows;
  for (int64_t k = 0; k < strip.K; ++k) {
    const float* line = strip.panel + k * kPanel;
    __builtin_prefetch(strip.ahead + k * kLine, 0, 2);
    __builtin_prefetch(line + 4 * kPanel, 0, 3);
    __builtin_prefetch(line + 4 * kPanel + kLine, 0, 3);
    const Lanes left = *reinterpret_cast<const Lanes*>(line);
    const Lanes right = *reinterpret_cast<const Lanes*>(line + kLine);
#pragma GCC unroll 14
    for (int i = 0; i < ROWS; ++i) {
      const float x = rows[i * strip.stride + k];
      sums[i][0] += x * left;
      sums[i][1] += x * right;
    }
  }
#pragma GCC unroll 14
  for (int i = 0; i < ROWS; ++i) {
    Lanes* out = reinterpret_cast<Lanes*>(strip.out + i * strip.out_stride);
    out[0] = sums[i][0];
    out[1] = sums[i][1];
  }
}

using StripProduct = void (*)(const Strip&);
constexpr StripProduct kStripProducts[kStrip + 1] = {
    nullptr,           strip_product<1>,  strip_product<2>,  strip_product<3>,  strip_product<4>,
    strip_product<5>,  strip_product<6>,  strip_product<7>,  strip_product<8>,  strip_product<9>,
    strip_product<10>, strip_product<11>, strip_product<12>, strip_product<13>, strip_product<14>};

// rows [R, K] times some panels -> out [R, 32·panels]; rows are cut into strips of like height.
inline void panel_product(const float* rows, int64_t R, int64_t stride, const float* panels,
                          int64_t K, int64_t count, const float* bias, float* out,
                          int64_t out_stride, const float* next) {
  const int64_t strips = (R + kStrip - 1) / kStrip, parts = (K + kDepth - 1) / kDepth;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t from = K * part / parts, depth = K * (part + 1) / parts - from;
    for (int64_t p = 0; p < count; ++p) {
      const float* panel = panels + (p * K + from) * kPanel;
      const float* ahead = p + 1 < count ? panel + K * kPanel : next;
      if (p + 1 == count && part + 1 < parts) ahead = panels + (from + depth) * kPanel;
      for (int64_t s = 0; s < strips; ++s) {
        const int64_t first = R * s / strips, height = R * (s + 1) / strips - first;
        float* to = out + first * out_stride + p * kPanel;
        const float* start = bias ? bias + p * kPanel : nullptr;
        // A panel has 2 lines a step: two strips fetch all of the next one.
        kStripProducts[height]({rows + first * stride + from, stride, panel, depth,
                                part > 0 ? to : start, part > 0 ? out_stride : 0, to, out_stride,
                                ahead + (s % 2) * depth * kLine});
      }
    }
  }
}

}  // namespace
}  // namespace ioi_fast
