// Matrix products with weights in panels: [columns / 32][steps][32] words, so that one step after
// another reads one line of memory after another.
//
// A word is one k in fp32, or two neighbours in bf16: both precisions have one layout and one walk
// over it, and sum in fp32. A strip of up to 14 rows by one panel is held in registers (28 of the 32
// of AVX-512) over all steps, while the next panel is fetched into the second cache. Every output is
// one sum in the order of k: how rows are cut into blocks or shared by threads does not change a bit
// of it.
#pragma once

#include <cstdint>
#include <cstring>

#include "vector_math.h"

// Only the strips are written for wide registers; elsewhere they compile to what the CPU has, and
// panels_supported() says that oneDNN is the better choice.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(IOI_FAST_PORTABLE)
#include <immintrin.h>
#define IOI_FAST_INTRINSICS 1
// bf16 instructions come from intrinsics alone: strips in fp32 get none.
#define IOI_FAST_WIDE __attribute__((target("avx512f,avx512bf16,prefer-vector-width=512")))
#else
#define IOI_FAST_INTRINSICS 0
#define IOI_FAST_WIDE
#endif

namespace ioi_fast {
namespace {

constexpr int64_t kPanel = 32;  // columns
constexpr int kStrip = 14;      // rows
constexpr int64_t kLine = 16;   // words of a cache line
// Steps at a time: the rows of a strip stay in the first cache while all panels go by.
constexpr int64_t kDepth = 768;

typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(64), aligned(4), may_alias));
typedef float Word __attribute__((may_alias));  // one float, or two bf16
typedef uint16_t Half __attribute__((may_alias));

// The nearest bf16 in the high half, ties to even; what is not a number stays so.
inline __attribute__((always_inline)) uint32_t rounded_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t nearest = bits + 0x7fffu + ((bits >> 16) & 1u);
  const bool number = (bits & 0x7fffffffu) <= 0x7f800000u;
  return (number ? nearest : bits | 0x400000u) & 0xffff0000u;
}

// A word is one k: sums += word·line.
struct Fp32 {
  static constexpr int64_t kPerWord = 1;

  static inline __attribute__((always_inline)) void add(Lanes& sums, Word word, Lanes line) {
    sums += word * line;
  }

  static void store(const float* __restrict row, int64_t count, Word* out) {
    std::memcpy(out, row, count * sizeof(float));
  }
};

// A word is two k, the first in its low half.
struct Bf16 {
  static constexpr int64_t kPerWord = 2;

#if IOI_FAST_INTRINSICS
  static inline __attribute__((always_inline)) IOI_FAST_WIDE void add(Lanes& sums, Word word,
                                                                      Lanes line) {
    const __m512bh pair = reinterpret_cast<__m512bh>(_mm512_set1_ps(word));
    sums = _mm512_dpbf16_ps(sums, pair, reinterpret_cast<__m512bh>(line));
  }
#else
  static inline void add(Lanes& sums, Word word, Lanes line) {
    uint32_t bits;
    std::memcpy(&bits, &word, sizeof bits);
    const uint32_t halves[2] = {bits << 16, bits & 0xffff0000u};
    float pair[2];
    std::memcpy(pair, halves, sizeof pair);
    const Bits pairs = reinterpret_cast<const Bits&>(line);
    const Bits first = pairs << 16, second = pairs & 0xffff0000u;
    sums += pair[0] * reinterpret_cast<const Lanes&>(first);
    sums += pair[1] * reinterpret_cast<const Lanes&>(second);
  }
#endif

  EVERY_CPU static void store(const float* __restrict row, int64_t count, Word* out) {
    Half* __restrict to = reinterpret_cast<Half*>(out);
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<uint16_t>(rounded_bits(row[i]) >> 16);
    if (count % 2) to[count] = 0;
  }
};

// A word is one k that bf16 could hold, multiplied in fp32: for CPUs without products of pairs. Its
// panels are those of a weight that was rounded.
struct Rounded : Fp32 {
  EVERY_CPU static void store(const float* __restrict row, int64_t count, Word* __restrict out) {
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t bits = rounded_bits(row[i]);
      std::memcpy(out + i, &bits, sizeof bits);
    }
  }
};

template <class Operand>
constexpr int64_t words(int64_t count) {
  return (count + Operand::kPerWord - 1) / Operand::kPerWord;
}

struct Strip {
  const Word* rows;  // [strip, steps], `stride` apart
  int64_t stride;
  const Word* panel;  // [steps, 32]
  int64_t steps;
  const float* start;  // what is added to, [strip, 32], `start_stride` apart, or null
  int64_t start_stride;
  float* out;  // [strip, 32], `out_stride` apart
  int64_t out_stride;
  const Word* ahead;  // what to fetch meanwhile: a line a step
};

template <class Operand, int ROWS>
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
  const Word* rows = strip.rows;
  for (int64_t k = 0; k < strip.steps; ++k) {
    const Word* line = strip.panel + k * kPanel;
    __builtin_prefetch(strip.ahead + k * kLine, 0, 2);
    __builtin_prefetch(line + 4 * kPanel, 0, 3);
    __builtin_prefetch(line + 4 * kPanel + kLine, 0, 3);
    const Lanes left = *reinterpret_cast<const Lanes*>(line);
    const Lanes right = *reinterpret_cast<const Lanes*>(line + kLine);
#pragma GCC unroll 14
    for (int i = 0; i < ROWS; ++i) {
      const Word word = rows[i * strip.stride + k];
      Operand::add(sums[i][0], word, left);
      Operand::add(sums[i][1], word, right);
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
template <class Operand>
constexpr StripProduct kStripProducts[kStrip + 1] = {
    nullptr,
    strip_product<Operand, 1>,
    strip_product<Operand, 2>,
    strip_product<Operand, 3>,
    strip_product<Operand, 4>,
    strip_product<Operand, 5>,
    strip_product<Operand, 6>,
    strip_product<Operand, 7>,
    strip_product<Operand, 8>,
    strip_product<Operand, 9>,
    strip_product<Operand, 10>,
    strip_product<Operand, 11>,
    strip_product<Operand, 12>,
    strip_product<Operand, 13>,
    strip_product<Operand, 14>,
};

// Some steps of some panels; a panel has `steps` in all.
struct Panels {
  const Word* first;  // the first step that is meant of the first panel
  int64_t steps, depth, count;
  const Word* next;  // what is read after them
};

// Where sums begin: at `data` [R, 32·panels], rows `stride` apart, or at 0 if it is null.
struct Start {
  const float* data;
  int64_t stride;
};

// out [R, 32·panels] = start + rows [R, depth] times panels; rows are cut into strips of like height.
template <class Operand>
void panel_part(const Word* rows, int64_t R, int64_t stride, const Panels& panels, Start start,
                float* out, int64_t out_stride) {
  const int64_t strips = (R + kStrip - 1) / kStrip, depth = panels.depth;
  for (int64_t p = 0; p < panels.count; ++p) {
    const Word* panel = panels.first + p * panels.steps * kPanel;
    const Word* ahead = p + 1 < panels.count ? panel + panels.steps * kPanel : panels.next;
    for (int64_t s = 0; s < strips; ++s) {
      const int64_t first = R * s / strips, height = R * (s + 1) / strips - first;
      const float* from = start.data ? start.data + first * start.stride + p * kPanel : nullptr;
      // A panel has 2 lines a step: two strips fetch all of the next one.
      kStripProducts<Operand>[height]({rows + first * stride, stride, panel, depth, from,
                                       start.stride, out + first * out_stride + p * kPanel,
                                       out_stride, ahead + (s % 2) * depth * kLine});
    }
  }
}

// The same over all steps of the panels, in parts whose rows stay in the first cache; the start is
// a bias, or null.
template <class Operand>
void panel_product(const Word* rows, int64_t R, int64_t stride, const Word* panels, int64_t steps,
                   int64_t count, const float* bias, float* out, int64_t out_stride,
                   const Word* next) {
  const int64_t parts = (steps + kDepth - 1) / kDepth;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t from = steps * part / parts, end = steps * (part + 1) / parts;
    const Word* after = part + 1 < parts ? panels + end * kPanel : next;
    panel_part<Operand>(rows + from, R, stride,
                        {panels + from * kPanel, steps, end - from, count, after},
                        part > 0 ? Start{out, out_stride} : Start{bias, 0}, out, out_stride);
  }
}

}  // namespace
}  // namespace ioi_fast
