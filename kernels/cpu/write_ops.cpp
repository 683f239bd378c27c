// What patched heads write to the residual stream: rank-K products, added where they belong.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "attention_lanes.h"

namespace ioi_fast {
namespace {

constexpr int64_t kColumns = 4 * kLanes;  // of W_O at a time: with K rows it fills the first cache

struct Writes {
  float* delta;  // [P, C, D]
  const int64_t *rows, *heads;
  const float *delta_z, *w_o;  // [C, H, K] and [H, K, D], contiguous
  int64_t count, C, D, H, K;
};

struct Scratch {
  std::vector<float> z, weight, product;
};

// What one head writes to some columns of all cells, into product [C, wide].
void head_product(const Writes& work, int64_t head, int64_t first, int64_t width, int64_t wide,
                  Scratch& scratch) {
  for (int64_t k = 0; k < work.K; ++k) {
    const float* from = work.w_o + (head * work.K + k) * work.D + first;
    std::copy(from, from + width, scratch.weight.data() + k * wide);
  }
  for (int64_t cell = 0; cell < work.C; cell += kLanes) {
    for (int64_t c = cell; c < std::min(cell + kLanes, work.C); ++c) {
      put_lane(work.delta_z + (c * work.H + head) * work.K, work.K, c - cell, scratch.z.data());
    }
    mix_rows(scratch.z.data(), scratch.weight.data(), wide, work.K,
             scratch.product.data() + cell * wide, wide, false);
  }
}

// All writes to some columns; one after another, since a variant may hold several heads.
void write_columns(const Writes& work, int64_t first, Scratch& scratch) {
  const int64_t width = std::min(kColumns, work.D - first), wide = whole(width, kLanes);
  for (int64_t i = 0; i < work.count; ++i) {
    if (i == 0 || work.heads[i] != work.heads[i - 1]) {
      head_product(work, work.heads[i], first, width, wide, scratch);
    }
    for (int64_t c = 0; c < work.C; ++c) {
      float* out = work.delta + (work.rows[i] * work.C + c) * work.D + first;
      const float* product = scratch.product.data() + c * wide;
      for (int64_t d = 0; d < width; ++d) out[d] += product[d];
    }
  }
}

void check_places(const at::Tensor& places, int64_t count, int64_t size, const char* name) {
  TORCH_CHECK(places.scalar_type() == at::kLong && places.dim() == 1 && places.size(0) == count &&
                  places.is_contiguous(),
              name, " must be contiguous int64 [", count, "], got ", places.sizes());
  const int64_t* first = places.const_data_ptr<int64_t>();
  TORCH_CHECK(std::all_of(first, first + count, [&](int64_t at) { return 0 <= at && at < size; }),
              name, " must be from 0 to ", size - 1);
}

// delta[rows[i]] += delta_z[:, heads[i]] @ w_o[heads[i]], in place.
at::Tensor& head_write_(at::Tensor& delta, const at::Tensor& rows, const at::Tensor& delta_z,
                        const at::Tensor& heads, const at::Tensor& w_o) {
  TORCH_CHECK(delta.dim() == 3 && delta.scalar_type() == at::kFloat && delta.is_contiguous(),
              "delta must be contiguous float32 [P, C, D], got ", delta.sizes());
  const int64_t P = delta.size(0), C = delta.size(1), D = delta.size(2);
  TORCH_CHECK(delta_z.dim() == 3 && delta_z.size(0) == C && delta_z.scalar_type() == at::kFloat,
              "delta_z must be float32 [", C, ", H, K], got ", delta_z.sizes());
  const int64_t H = delta_z.size(1), K = delta_z.size(2);
  TORCH_CHECK(w_o.sizes() == at::IntArrayRef({H, K, D}) && w_o.scalar_type() == at::kFloat,
              "w_o must be float32 [", H, ", ", K, ", ", D, "], got ", w_o.sizes());
  check_places(rows, rows.numel(), P, "rows");
  check_places(heads, rows.numel(), H, "heads");
  const at::Tensor z = delta_z.contiguous(), weight = w_o.contiguous();
  const Writes work{delta.mutable_data_ptr<float>(),    rows.const_data_ptr<int64_t>(),
                    heads.const_data_ptr<int64_t>(),    z.const_data_ptr<float>(),
                    weight.const_data_ptr<float>(), rows.numel(), C, D, H, K};
  at::parallel_for(0, (D + kColumns - 1) / kColumns, 1, [&](int64_t begin, int64_t end) {
    const int64_t cells = whole(C, kLanes);
    Scratch scratch{std::vector<float>(K * kLanes), std::vector<float>(K * kColumns),
                    std::vector<float>(cells * kColumns)};
    for (int64_t panel = begin; panel < end; ++panel) {
      write_columns(work, panel * kColumns, scratch);
    }
  });
  return delta;
}

}  // namespace
}  // namespace ioi_fast

TORCH_LIBRARY_FRAGMENT(ioi_fast, library) {
  library.def(
      "head_write_(Tensor(a!) delta, Tensor rows, Tensor delta_z, Tensor heads, Tensor w_o) "
      "-> Tensor(a!)");
}

TORCH_LIBRARY_IMPL(ioi_fast, CPU, library) { library.impl("head_write_", &ioi_fast::head_write_); }
