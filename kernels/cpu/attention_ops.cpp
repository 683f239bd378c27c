// Attention of a run, and in difference form: heads of many variants against the keys and values of
// one base.
//
// A unit of work is one head of one prompt, some queries and some variants: the base's keys, values
// and scores are laid out once and serve all of them. The table says of each row and head what is
// done: computed, frozen (nothing is read) or taken from a source.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>

#include "attention_unit.h"

namespace ioi_fast {
namespace {

constexpr int64_t kVariants = 32;  // of a unit, so that few prompts still feed all threads

void run(const Attention& work) {
  const int64_t queries = (work.T + kLanes - 1) / kLanes;
  const int64_t variants = (work.P + kVariants - 1) / kVariants;
  at::parallel_for(0, work.N * work.H * queries * variants, 1, [&](int64_t begin, int64_t end) {
    Unit unit(work);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t block = i % variants, rest = i / variants;
      unit.of(rest / queries / work.H, rest / queries % work.H, rest % queries * kLanes);
      const int64_t last = std::min(work.P, (block + 1) * kVariants);
      for (int64_t p = block * kVariants; p < last; ++p) unit.variant(p);
    }
  });
}

void run_whole(const Attention& work) {
  const int64_t queries = (work.T + kLanes - 1) / kLanes;
  at::parallel_for(0, work.N * work.H * queries, 1, [&](int64_t begin, int64_t end) {
    Unit unit(work);
    for (int64_t i = begin; i < end; ++i) {
      unit.of(i / queries / work.H, i / queries % work.H, i % queries * kLanes);
      unit.whole();
    }
  });
}

at::Tensor together(const at::Tensor& rows) {
  return rows.stride(-1) == 1 || rows.size(-1) == 1 ? rows : rows.contiguous();
}

void check_floats(const at::Tensor& given, at::IntArrayRef wanted, const char* name) {
  TORCH_CHECK(given.scalar_type() == at::kFloat && given.sizes() == wanted, name,
              " must be float32 ", wanted, ", got ", given.scalar_type(), " ", given.sizes());
}

// Positions [N, width] within 0..S-1, or from -1 on for slots that may be unused.
at::Tensor checked_positions(const std::optional<at::Tensor>& given, int64_t N, int64_t width,
                             int64_t S, int64_t least, const char* name) {
  if (!given) return {};
  TORCH_CHECK(given->scalar_type() == at::kLong && given->sizes() == at::IntArrayRef({N, width}),
              name, " must be int64 [", N, ", ", width, "], got ", given->sizes());
  const at::Tensor positions = given->contiguous();
  const int64_t* first = positions.const_data_ptr<int64_t>();
  TORCH_CHECK(std::all_of(first, first + N * width, [&](int64_t s) { return least <= s && s < S; }),
              name, " must be from ", least, " to ", S - 1);
  return positions;
}

// The table as [P, N, T, H] of codes that sources [sources, N, T, H, K] have.
at::Tensor checked_table(const std::optional<at::Tensor>& table, at::IntArrayRef wanted,
                         int64_t sources) {
  if (!table) return {};
  TORCH_CHECK(table->scalar_type() == at::kChar && table->dim() == 4, "table must be int8 ", wanted,
              ", got ", table->scalar_type(), " ", table->sizes());
  const at::Tensor codes = table->contiguous();
  const int8_t* first = codes.const_data_ptr<int8_t>();
  TORCH_CHECK(std::all_of(first, first + codes.numel(),
                          [&](int8_t code) { return kFrozen <= code && code < sources; }),
              "table must be from -2 to ", sources - 1);
  return codes.expand(wanted);
}

// z of all queries, each of which sees the keys up to its own.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale) {
  TORCH_CHECK(q.dim() == 4, "q must be [N, T, H, K], got ", q.sizes());
  for (const at::Tensor& given : {q, k, v}) check_floats(given, q.sizes(), "q, k and v");
  const int64_t N = q.size(0), T = q.size(1), H = q.size(2), K = q.size(3);
  at::Tensor out = at::empty({N, T, H, K}, q.options());
  if (out.numel() == 0) return out;
  const at::Tensor rows[] = {together(q), together(k), together(v)};
  Attention work{1, N, T, T, 0, H, K, static_cast<float>(scale)};
  work.q = view(rows[0]), work.k = view(rows[1]), work.v = view(rows[2]);
  work.out = out.mutable_data_ptr<float>();
  run_whole(work);
  return out;
}

at::Tensor attention_delta(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const at::Tensor& delta_q, const at::Tensor& delta_k,
                           const at::Tensor& delta_v, double scale,
                           const std::optional<at::Tensor>& at,
                           const std::optional<at::Tensor>& changed,
                           const std::optional<at::Tensor>& table,
                           const std::optional<at::Tensor>& sources) {
  TORCH_CHECK(q.dim() == 4 && k.dim() == 4 && delta_q.dim() == 5 && delta_k.dim() == 5,
              "q and k must be [N, T, H, K], delta_q and delta_k [P, N, T, H, K], got ", q.sizes(),
              ", ", k.sizes(), ", ", delta_q.sizes(), " and ", delta_k.sizes());
  const int64_t P = delta_q.size(0), N = q.size(0), T = q.size(1), H = q.size(2), K = q.size(3);
  const int64_t S = k.size(1), C = delta_k.size(2);
  TORCH_CHECK(changed || C == S, "delta_k must have one row a key where changed is not given");
  TORCH_CHECK(at || T <= S, "there must be a key for every query where at is not given");
  check_floats(q, {N, T, H, K}, "q");
  for (const at::Tensor& given : {k, v}) check_floats(given, {N, S, H, K}, "k and v");
  check_floats(delta_q, {P, N, T, H, K}, "delta_q");
  for (const at::Tensor& given : {delta_k, delta_v}) {
    check_floats(given, {P, N, C, H, K}, "delta_k and delta_v");
  }
  const int64_t named = sources ? sources->size(0) : 0;
  if (sources) check_floats(*sources, {named, N, T, H, K}, "sources");
  const at::Tensor positions = checked_positions(at, N, T, S, 0, "at");
  const at::Tensor slots = checked_positions(changed, N, C, S, -1, "changed");
  const at::Tensor codes = checked_table(table, {P, N, T, H}, named);
  at::Tensor out = at::empty({P, N, T, H, K}, q.options());
  if (out.numel() == 0) return out;
  const at::Tensor rows[] = {together(q), together(k), together(v), together(delta_q),
                             together(delta_k), together(delta_v)};
  const at::Tensor from = sources ? together(*sources) : at::Tensor();
  Attention work{P, N, T, S, C, H, K, static_cast<float>(scale)};
  work.q = view(rows[0]), work.k = view(rows[1]), work.v = view(rows[2]);
  work.delta_q = view(rows[3]), work.delta_k = view(rows[4]), work.delta_v = view(rows[5]);
  if (named) work.sources = view(from);
  work.at = at ? positions.const_data_ptr<int64_t>() : nullptr;
  work.changed = changed ? slots.const_data_ptr<int64_t>() : nullptr;
  if (table) {
    work.table = {codes.const_data_ptr<int8_t>(), codes.stride(0), codes.stride(1), codes.stride(2),
                  codes.stride(3)};
  }
  work.out = out.mutable_data_ptr<float>();
  run(work);
  return out;
}

}  // namespace
}  // namespace ioi_fast

TORCH_LIBRARY_FRAGMENT(ioi_fast, library) {
  library.def("attention(Tensor q, Tensor k, Tensor v, float scale) -> Tensor");
  library.def(
      "attention_delta(Tensor q, Tensor k, Tensor v, Tensor delta_q, Tensor delta_k, "
      "Tensor delta_v, float scale, Tensor? at=None, Tensor? changed=None, Tensor? table=None, "
      "Tensor? sources=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(ioi_fast, CPU, library) {
  library.impl("attention", &ioi_fast::attention);
  library.impl("attention_delta", &ioi_fast::attention_delta);
}
