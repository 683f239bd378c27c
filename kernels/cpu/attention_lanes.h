// Softmax as a difference for up to 16 queries at once: every query has a lane of its own.
//
// Scores lie as [keys][16 queries], so that sums over keys need no step across lanes, and the keys
// of base and variant are read where they stand. Same formulas as attention_delta in torch_ops.py.
#pragma once

#include <algorithm>
#include <cstdint>

#include "difference_rows.h"
#include "vector_math.h"

namespace ioi_fast {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kTogether = 8;      // rows of a product that are summed side by side
constexpr float kNear = 1.0f;         // a score that moves further counts as far
constexpr float kMost = 0.5f;         // so much of the sum of weights changed: all of them did
constexpr float kUnderflow = -80.0f;  // exp of it is 2e-35: nothing beside a weight of 1

constexpr int64_t whole(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

typedef float Wide __attribute__((vector_size(64), aligned(4), may_alias));

struct PerLane {
  float lane[kLanes];
};

// How many keys each query sees.
struct Seen {
  int32_t keys[kLanes];
};

#define EACH_LANE(lane) _Pragma("omp simd") for (int64_t lane = 0; lane < kLanes; ++lane)

// out [16] of every row = row [depth] times columns [depth, 16].
EVERY_CPU void lane_products(const float* __restrict rows, int64_t stride, int64_t count,
                             const float* __restrict columns, int64_t depth, float* __restrict out) {
  for (int64_t first = 0; first < count; first += kTogether) {
    const float* row[kTogether];
    for (int64_t i = 0; i < kTogether; ++i) row[i] = rows + std::min(first + i, count - 1) * stride;
    Wide sums[kTogether] = {};
    for (int64_t k = 0; k < depth; ++k) {
      const Wide line = *reinterpret_cast<const Wide*>(columns + k * kLanes);
#pragma GCC unroll 8
      for (int64_t i = 0; i < kTogether; ++i) sums[i] += row[i][k] * line;
    }
    for (int64_t i = 0; i < std::min(kTogether, count - first); ++i) {
      *reinterpret_cast<Wide*>(out + (first + i) * kLanes) = sums[i];
    }
  }
}

// out [16, width] (+)= the transpose of weights [count, 16] times rows [count, width].
EVERY_CPU void mix_rows(const float* __restrict weights, const float* __restrict rows,
                        int64_t stride, int64_t count, float* __restrict out, int64_t width,
                        bool add) {
  for (int64_t first = 0; first < kLanes; first += kTogether) {
    for (int64_t column = 0; column < width; column += kLanes) {
      Wide sums[kTogether] = {};
      float* corner = out + first * width + column;
      for (int64_t i = 0; add && i < kTogether; ++i) {
        sums[i] = *reinterpret_cast<const Wide*>(corner + i * width);
      }
      for (int64_t s = 0; s < count; ++s) {
        const Wide line = *reinterpret_cast<const Wide*>(rows + s * stride + column);
        const float* weight = weights + s * kLanes + first;
#pragma GCC unroll 8
        for (int64_t i = 0; i < kTogether; ++i) sums[i] += weight[i] * line;
      }
      for (int64_t i = 0; i < kTogether; ++i) {
        *reinterpret_cast<Wide*>(corner + i * width) = sums[i];
      }
    }
  }
}

// Lane `lane` of columns [depth, 16].
inline void put_lane(const float* row, int64_t depth, int64_t lane, float* columns) {
  for (int64_t k = 0; k < depth; ++k) columns[k * kLanes + lane] = row[k];
}

EVERY_CPU void add(const float* __restrict base, const float* __restrict delta,
                   float* __restrict out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = base[i] + delta[i];
}

EVERY_CPU void multiply(float* __restrict values, float scale, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] *= scale;
}

// weights [n, 16] = softmax of the scores that each query sees, 0 of the others.
EVERY_CPU void softmax_lanes(const float* __restrict scores, const Seen& seen, int64_t n,
                             float* __restrict weights) {
  PerLane top, total = {};
  EACH_LANE(l) top.lane[l] = scores[l];
  for (int64_t s = 1; s < n; ++s) {
    EACH_LANE(l) {
      const float score = s < seen.keys[l] ? scores[s * kLanes + l] : top.lane[l];
      top.lane[l] = score > top.lane[l] ? score : top.lane[l];
    }
  }
  for (int64_t s = 0; s < n; ++s) {
    EACH_LANE(l) {
      const float below = scores[s * kLanes + l] - top.lane[l];
      const float weight = exponential(below < kUnderflow ? kUnderflow : below).exp;
      weights[s * kLanes + l] = s < seen.keys[l] ? weight : 0.0f;
      total.lane[l] += weights[s * kLanes + l];
    }
  }
  EACH_LANE(l) total.lane[l] = 1.0f / total.lane[l];
  for (int64_t s = 0; s < n; ++s) {
    EACH_LANE(l) weights[s * kLanes + l] *= total.lane[l];
  }
}

// With e = exp(move) - 1 and m = sum of pattern·e the new weights are pattern·(1 + e)/(1 + m).
EVERY_CPU void near_lanes(const float* __restrict pattern, const float* __restrict move, int64_t n,
                          float* __restrict change) {
  PerLane m = {}, scale;
  for (int64_t s = 0; s < n; ++s) {
    EACH_LANE(l) {
      const float e = exponential(clamp(move[s * kLanes + l], -kNear, kNear)).expm1;
      change[s * kLanes + l] = e;
      m.lane[l] += pattern[s * kLanes + l] * e;
    }
  }
  EACH_LANE(l) scale.lane[l] = 1.0f / (1.0f + m.lane[l]);
  for (int64_t s = 0; s < n; ++s) {
    EACH_LANE(l) {
      const int64_t i = s * kLanes + l;
      change[i] = pattern[i] * (change[i] - m.lane[l]) * scale.lane[l];
    }
  }
}

// Takes the change of the queries whose scores moved far; `move` is used up.
//
// Moves are shifted, which changes no weight, until the largest new score is as large as the largest
// old one: nothing overflows, and the sum of the new weights can't vanish. A weight whose score
// moved far is taken from its new score, since it may be 0 before. A weight that stays is no
// difference of two nearly equal numbers, however far the scores of others move; only where most of
// the sum changed, and with it every weight, are new and old weights subtracted.
EVERY_CPU void far_lanes(const float* __restrict scores, const float* __restrict pattern,
                         const Seen& seen, const PerLane& furthest, int64_t n,
                         float* __restrict move, float* __restrict change) {
  PerLane top, moved_top, largest, changed = {}, total = {};
  EACH_LANE(l) {
    top.lane[l] = scores[l];
    moved_top.lane[l] = scores[l] + move[l];
    largest.lane[l] = pattern[l];
  }
  for (int64_t s = 1; s < n; ++s) {
    EACH_LANE(l) {
      const int64_t i = s * kLanes + l;
      const bool counts = s < seen.keys[l];
      const float score = counts ? scores[i] : top.lane[l];
      const float moved = counts ? scores[i] + move[i] : moved_top.lane[l];
      top.lane[l] = score > top.lane[l] ? score : top.lane[l];
      moved_top.lane[l] = moved > moved_top.lane[l] ? moved : moved_top.lane[l];
      largest.lane[l] = pattern[i] > largest.lane[l] ? pattern[i] : largest.lane[l];
    }
  }
  for (int64_t s = 0; s < n; ++s) {
    EACH_LANE(l) {
      const int64_t i = s * kLanes + l;
      const bool counts = s < seen.keys[l];
      const float shifted = move[i] - (moved_top.lane[l] - top.lane[l]);
      const bool far = __builtin_fabsf(shifted) > kNear;
      const float below = scores[i] + move[i] - moved_top.lane[l];
      const Exponential e = exponential(far ? clamp(below, kUnderflow, 0.0f) : shifted);
      const float grown = e.exp * (far ? largest.lane[l] : pattern[i]);
      const float c = far ? grown - pattern[i] : pattern[i] * e.expm1;
      total.lane[l] += counts ? grown : 0.0f;
      changed.lane[l] += counts ? c : 0.0f;
      move[i] = counts ? c : 0.0f;
    }
  }
  EACH_LANE(l) total.lane[l] = 1.0f / total.lane[l];
  for (int64_t s = 0; s < n; ++s) {
    EACH_LANE(l) {
      const int64_t i = s * kLanes + l;
      const float most = (pattern[i] + move[i]) * total.lane[l] - pattern[i];
      const float little = (move[i] - pattern[i] * changed.lane[l]) * total.lane[l];
      const float own = __builtin_fabsf(changed.lane[l]) > kMost ? most : little;
      change[i] = furthest.lane[l] > kNear ? own : change[i];
    }
  }
}

// Changes of weights sum to zero. That of the largest weight would be a difference of two numbers
// near 1; from the others it comes as exact as they are.
EVERY_CPU void balance_lanes(const float* __restrict pattern, int64_t n, float* __restrict change) {
  PerLane top, total = {};
  Seen place = {};
  EACH_LANE(l) top.lane[l] = -1.0f;
  for (int64_t s = 0; s < n; ++s) {
    EACH_LANE(l) {
      const int64_t i = s * kLanes + l;
      const float least = pattern[i] + (change[i] < 0.0f ? change[i] : 0.0f);
      place.keys[l] = least > top.lane[l] ? static_cast<int32_t>(s) : place.keys[l];
      top.lane[l] = least > top.lane[l] ? least : top.lane[l];
    }
  }
  for (int64_t s = 0; s < n; ++s) {
    EACH_LANE(l) total.lane[l] += s == place.keys[l] ? 0.0f : change[s * kLanes + l];
  }
  for (int64_t l = 0; l < kLanes; ++l) change[place.keys[l] * kLanes + l] = -total.lane[l];
}

// change [n, 16] of the weights when scores move; `move` is used up.
EVERY_CPU void change_lanes(const float* __restrict scores, const float* __restrict pattern,
                            const Seen& seen, int64_t n, float* __restrict move,
                            float* __restrict change) {
  PerLane furthest = {};
  for (int64_t s = 0; s < n; ++s) {
    EACH_LANE(l) {
      const float size = __builtin_fabsf(move[s * kLanes + l]);
      const float counted = s < seen.keys[l] ? size : 0.0f;
      furthest.lane[l] = counted > furthest.lane[l] ? counted : furthest.lane[l];
    }
  }
  near_lanes(pattern, move, n, change);
  if (*std::max_element(furthest.lane, furthest.lane + kLanes) > kNear) {
    far_lanes(scores, pattern, seen, furthest, n, move, change);
  }
  balance_lanes(pattern, n, change);
}

#undef EACH_LANE

}  // namespace
}  // namespace ioi_fast
