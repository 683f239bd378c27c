// One head of one prompt and up to 16 of its queries: what a program of attention works on.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <vector>

#include "attention_lanes.h"

namespace ioi_fast {
namespace {

constexpr int8_t kLive = -1, kFrozen = -2;  // as in reference.py; 0 and above name a source

// [variant, prompt, token, head] of a tensor whose last axis lies together.
template <class T>
struct View {
  const T* data;
  int64_t p, n, t, h;
  const T* at(int64_t variant, int64_t prompt, int64_t token, int64_t head) const {
    return data + variant * p + prompt * n + token * t + head * h;
  }
};

View<float> view(const at::Tensor& rows) {  // [P, N, T, H, K], or [N, T, H, K] for all variants
  const int64_t shared = rows.dim() - 4;
  return {rows.const_data_ptr<float>(), shared ? rows.stride(0) : 0, rows.stride(shared),
          rows.stride(shared + 1), rows.stride(shared + 2)};
}

struct Attention {
  int64_t P, N, T, S, C, H, K;
  float scale;
  View<float> q, k, v, delta_q, delta_k, delta_v, sources;
  const int64_t *at, *changed;  // [N, T] and [N, C], or null
  View<int8_t> table;           // data is null where all is live
  float* out;                   // [P, N, T, H, K]

  int64_t position(int64_t n, int64_t t) const { return at ? at[n * T + t] : t; }
  int64_t slot(int64_t n, int64_t c) const { return changed ? changed[n * C + c] : c; }
  int8_t code(int64_t p, int64_t n, int64_t t, int64_t h) const {
    return table.data ? *table.at(p, n, t, h) : kLive;
  }
  float* row(int64_t p, int64_t n, int64_t t, int64_t h) const {
    return out + (((p * N + n) * T + t) * H + h) * K;
  }
};

// One head of one prompt and up to 16 of its queries, with what the base lends to their variants.
class Unit {
 public:
  explicit Unit(const Attention& work)
      : work_(work),
        wide_(ioi_fast::whole(work.K, kLanes)),
        queries_(work.K * kLanes),
        delta_queries_(work.K * kLanes),
        moved_queries_(work.K * kLanes),
        scores_(work.S * kLanes),
        pattern_(work.S * kLanes),
        move_(work.S * kLanes),
        change_(work.S * kLanes),
        own_(work.C * kLanes),
        padded_(work.K == wide_ ? 0 : std::max(work.S, work.C) * wide_),
        out_(kLanes * wide_) {}

  void of(int64_t n, int64_t h, int64_t first) {
    n_ = n, h_ = h, first_ = first;
    count_ = std::min(kLanes, work_.T - first);
    ready_ = false;
  }

  void variant(int64_t p) {
    bool live[kLanes] = {}, any = false;
    for (int64_t t = 0; t < count_; ++t) {
      const int8_t code = work_.code(p, n_, first_ + t, h_);
      live[t] = code == kLive;
      any |= live[t];
      if (!live[t]) put(work_.row(p, n_, first_ + t, h_), code, t);
    }
    if (!any) return;
    if (!ready_) base();
    moves(p, live);
    change_lanes(scores_.data(), pattern_.data(), seen_, used_, move_.data(), change_.data());
    mix(p);
    for (int64_t t = 0; t < count_; ++t) {
      const float* row = out_.data() + t * wide_;
      if (live[t]) std::copy(row, row + work_.K, work_.row(p, n_, first_ + t, h_));
    }
  }

  // z itself: the base's weights of the base's values.
  void whole() {
    base();
    mix_values(pattern_, work_.v.at(0, n_, 0, h_), work_.v.t, used_, false);
    for (int64_t t = 0; t < count_; ++t) {
      const float* row = out_.data() + t * wide_;
      std::copy(row, row + work_.K, work_.row(0, n_, first_ + t, h_));
    }
  }

 private:
  void put(float* row, int8_t code, int64_t t) {
    if (code == kFrozen) {
      std::fill(row, row + work_.K, 0.0f);
    } else {
      const float* source = work_.sources.at(code, n_, first_ + t, h_);
      std::copy(source, source + work_.K, row);
    }
  }

  // The base's scores and weights, and how many keys each query sees.
  void base() {
    ready_ = true;
    used_ = 0;
    for (int64_t t = 0; t < kLanes; ++t) {
      const int64_t seen = t < count_ ? work_.position(n_, first_ + t) + 1 : 1;
      seen_.keys[t] = static_cast<int32_t>(seen);
      used_ = std::max(used_, seen);
    }
    for (int64_t t = 0; t < count_; ++t) {
      put_lane(work_.q.at(0, n_, first_ + t, h_), work_.K, t, queries_.data());
    }
    lane_products(work_.k.at(0, n_, 0, h_), work_.k.t, used_, queries_.data(), work_.K,
                  scores_.data());
    multiply(scores_.data(), work_.scale, used_ * kLanes);
    // Of no slots there is no address either.
    slots_ = work_.changed || work_.C == 0 ? work_.C : used_;
    softmax_lanes(scores_.data(), seen_, used_, pattern_.data());
  }

  // How far each score moves: δq·K + (q + δq)·δK.
  void moves(int64_t p, const bool* live) {
    for (int64_t t = 0; t < count_; ++t) {
      if (live[t]) {
        put_lane(work_.delta_q.at(p, n_, first_ + t, h_), work_.K, t, delta_queries_.data());
      } else {
        for (int64_t k = 0; k < work_.K; ++k) delta_queries_[k * kLanes + t] = 0.0f;
      }
    }
    add(queries_.data(), delta_queries_.data(), moved_queries_.data(), work_.K * kLanes);
    lane_products(work_.k.at(0, n_, 0, h_), work_.k.t, used_, delta_queries_.data(), work_.K,
                  move_.data());
    if (slots_ > 0) {  // where nothing changed there is no row to point at
      lane_products(work_.delta_k.at(p, n_, 0, h_), work_.delta_k.t, slots_, moved_queries_.data(),
                    work_.K, own_.data());
    }
    for (int64_t c = 0; c < slots_; ++c) {
      float* row = key_row(move_, c);
      if (row) add(row, own_.data() + c * kLanes, row, kLanes);
    }
    multiply(move_.data(), work_.scale, used_ * kLanes);
  }

  // The lanes of the key that slot c changes; null if no query sees it.
  float* key_row(std::vector<float>& lanes, int64_t c) {
    const int64_t key = work_.slot(n_, c);
    return key < 0 || key >= used_ ? nullptr : lanes.data() + key * kLanes;
  }

  // δz: changed weights of the base's values, and the new weights of the variant's own.
  void mix(int64_t p) {
    for (int64_t c = 0; c < slots_; ++c) {
      const float *before = key_row(pattern_, c), *change = key_row(change_, c);
      float* own = own_.data() + c * kLanes;
      if (before) {
        add(before, change, own, kLanes);
      } else {
        std::fill(own, own + kLanes, 0.0f);
      }
    }
    mix_values(change_, work_.v.at(0, n_, 0, h_), work_.v.t, used_, false);
    if (slots_ > 0) {
      mix_values(own_, work_.delta_v.at(p, n_, 0, h_), work_.delta_v.t, slots_, true);
    }
  }

  void mix_values(const std::vector<float>& weights, const float* rows, int64_t stride,
                  int64_t count, bool add) {
    if (work_.K != wide_) {
      for (int64_t s = 0; s < count; ++s) {
        std::copy(rows + s * stride, rows + s * stride + work_.K, padded_.data() + s * wide_);
      }
      rows = padded_.data(), stride = wide_;
    }
    mix_rows(weights.data(), rows, stride, count, out_.data(), wide_, add);
  }

  const Attention& work_;
  int64_t wide_;
  std::vector<float> queries_, delta_queries_, moved_queries_, scores_, pattern_, move_, change_;
  std::vector<float> own_, padded_, out_;
  Seen seen_ = {};
  int64_t n_ = 0, h_ = 0, first_ = 0, count_ = 0, used_ = 0, slots_ = 0;
  bool ready_ = false;
};

}  // namespace
}  // namespace ioi_fast
