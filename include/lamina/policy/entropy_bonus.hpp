// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Entropy bonus: the part of the loss that rewards spread-out distributions.
#pragma once

#include "lamina/core/error.hpp"
#include "lamina/policy/aggregation.hpp"

LAMINA_NAMESPACE_BEGIN

/// b.active() says whether entropies are read; b.weight(active_tokens, denominators, loss_weight)
/// is the weight of a token's entropy, where loss_weight is that of its policy term.
template <class B>
concept entropy_term = copyable_value<B> &&
    requires(B const& b, index_t n, loss_denominators const& d) {
  { b.active() } -> std::same_as<bool>;
  { b.weight(n, d, 1.0) } -> std::same_as<double>;
  b.check();
};

/// No entropy bonus.
struct no_entropy_bonus {
  LAMINA_HOST_DEVICE static constexpr bool active() noexcept { return false; }
  LAMINA_HOST_DEVICE static double weight(index_t, loss_denominators const&, double) { return 0; }
  static constexpr void check() noexcept {}
};

/// The aggregation of the policy term.
struct same_aggregation {};

/// loss -= coefficient * aggregate(H). With Aggregation = same_aggregation as verl has it, with
/// token_mean as TRL has it. The coefficient of the whole step; adaptive_entropy moves it between
/// steps. Negative coefficients lower the entropy.
template <class Aggregation = same_aggregation>
struct entropy_bonus {
  double coefficient = 0;
  Aggregation aggregation{};

  LAMINA_HOST_DEVICE bool active() const noexcept { return coefficient != 0; }
  LAMINA_HOST_DEVICE double weight(index_t active_tokens, loss_denominators const& d,
                                   double loss_weight) const {
    if constexpr (std::same_as<Aggregation, same_aggregation>) {
      return coefficient * loss_weight;
    } else {
      return coefficient * aggregation.weight(active_tokens, d);
    }
  }
  void check() const {
    if (!is_finite(coefficient)) {
      throw_config_error("entropy_bonus: coefficient is ", coefficient, ", expected finite");
    }
    if constexpr (!std::same_as<Aggregation, same_aggregation>) aggregation.check();
  }
};

static_assert(entropy_term<no_entropy_bonus> && entropy_term<entropy_bonus<>> &&
              entropy_term<entropy_bonus<token_mean>>);

LAMINA_NAMESPACE_END
