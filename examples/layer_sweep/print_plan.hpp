// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a run takes, before anything is allocated: --plan.
#pragma once

#include <cstdio>

#include "examples/decoder/memory.hpp"
#include "examples/layer_sweep/variants.hpp"
#include "lamina/layers/memory_plan_text.hpp"

namespace layer_sweep {

/// Prints the memory plan of an optimizer step for the first and the last single layer of the
/// profile and for the selection, each beside full training. Every rollout is taken to be as long
/// as it can be, and to teach something.
inline void print_plan(settings const& s, decoder::config const& shape, index_t prompt_length,
                       index_t response_length) {
  index_t const rows = s.prompts * s.group_size, length = prompt_length + response_length;
  lamina::step_shape const step{.sequences = lamina::equal_sequences(rows / s.mini_batches, length),
                                .logit_rows = rows / s.mini_batches * response_length,
                                .mini_batches = s.mini_batches,
                                .rollout_rows = rows,
                                .rollout_length = length,
                                .rollout_tokens = (std::max)(rows, s.prompts * prompt_length)};
  auto const plan_of = [&](lamina::backward_plan const& plan) {
    return lamina::plan_memory(decoder::transformer_shape(shape), plan, step,
                               decoder::activation_sizes(shape, length));
  };
  variant_list const variants(s);
  lamina::memory_plan const full = plan_of(variants.row("full").plan);
  std::printf(
      "One optimizer step of %lld x %lld rollouts in %lld mini-batches, %lld + %lld tokens each:\n",
      static_cast<long long>(s.prompts), static_cast<long long>(s.group_size),
      static_cast<long long>(s.mini_batches), static_cast<long long>(prompt_length),
      static_cast<long long>(response_length));
  index_t shown = 0;
  for (training const& row : variants.rows()) {
    bool const layer = row.variant.kind == lamina::variant_kind::layer;
    bool const selection = row.variant.kind == lamina::variant_kind::selection && !s.select.empty();
    if (!selection && !(layer && shown < 2)) continue;
    shown += layer ? 1 : 0;
    std::printf("\n%s\n%s", row.variant.name.c_str(),
                lamina::to_text(plan_of(row.plan), full).c_str());
  }
}

}  // namespace layer_sweep
