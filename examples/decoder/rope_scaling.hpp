// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rotary frequencies, and how models stretch them to read longer texts than they were trained on.
#pragma once

#include <cmath>

#include "lamina/core/view.hpp"

namespace decoder {

using lamina::index_t;

/// What becomes of a frequency f = theta^(-2 i / head_width) that turns r = original_length f / 2
/// pi times over the original context.
///
/// none    f
/// linear  f / factor. Source: Chen et al. 2023, arXiv:2306.15595.
/// llama3  f / factor up to r = slow, f from r = fast on, in between their mean with weights linear
///         in r. Source: Llama 3.1; Hugging Face, modeling_rope_utils.py.
/// yarn    the same, with weights linear in i. Source: Peng et al. 2023, arXiv:2309.00071, eq. 23.
enum class rope_kind : std::uint8_t { none, linear, llama3, yarn };

/// factor           by how much the context grows
/// original_length  tokens of the context before
/// slow, fast       turns over it; the files' low and high frequency factor, beta_slow and
/// beta_fast whole_pairs      yarn's weights begin and end at whole i magnitude        rotated
/// heads are multiplied by it (yarn's attention factor)
struct rope_scaling {
  rope_kind kind = rope_kind::none;
  double factor = 1;
  double original_length = 1;
  double slow = 1;
  double fast = 32;
  bool whole_pairs = true;
  double magnitude = 1;

  friend bool operator==(rope_scaling const&, rope_scaling const&) = default;
};

namespace detail {

// Weight of the unstretched frequency, 1 for fast ones.
LAMINA_HOST_DEVICE inline double kept_share(rope_scaling const& rope, double theta,
                                            index_t head_width, index_t i, double turns_of_pair) {
  if (rope.kind == rope_kind::linear) return 0;
  if (rope.kind == rope_kind::llama3) {
    if (turns_of_pair < rope.slow) return 0;
    if (turns_of_pair > rope.fast) return 1;
    return (turns_of_pair - rope.slow) / (rope.fast - rope.slow);
  }
  double const width = static_cast<double>(head_width), two_pi = 6.283185307179586;
  auto const pair_with = [&](double turns) {
    return width * std::log(rope.original_length / (turns * two_pi)) / (2 * std::log(theta));
  };
  double begin = pair_with(rope.fast), end = pair_with(rope.slow);
  if (rope.whole_pairs) {
    begin = std::floor(begin);
    end = std::ceil(end);
  }
  begin = begin > 0 ? begin : 0;
  end = end < width - 1 ? end : width - 1;
  if (begin == end) end += 0.001;
  double const ramp = (static_cast<double>(i) - begin) / (end - begin);
  return 1 - (ramp < 0 ? 0 : ramp > 1 ? 1 : ramp);
}

}  // namespace detail

/// Radians by which pair i of a head turns from one position to the next.
/// Source: Su et al. 2021, "RoFormer", eq. 15, and rope_kind.
LAMINA_HOST_DEVICE inline double rope_frequency(rope_scaling const& rope, double theta,
                                                index_t head_width, index_t i) {
  double const exponent = -2 * static_cast<double>(i) / static_cast<double>(head_width);
  double const frequency = std::pow(theta, exponent);
  if (rope.kind == rope_kind::none) return frequency;
  double const turns = rope.original_length * frequency / 6.283185307179586;
  double const kept = detail::kept_share(rope, theta, head_width, i, turns);
  return kept * frequency + (1 - kept) * frequency / rope.factor;
}

}  // namespace decoder
