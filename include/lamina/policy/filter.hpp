// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Token filters: which active tokens take part in the policy term.
#pragma once

#include <concepts>

#include "lamina/config.hpp"

LAMINA_NAMESPACE_BEGIN

/// f.keeps(log_ratio, advantage): whether an active token's policy term counts. A filtered token
/// keeps its KL term and stays in the denominators.
template <class F>
concept token_filter = std::copy_constructible<F> && requires(F const& f, double x) {
  { f.keeps(x, x) } -> std::same_as<bool>;
};

/// Every active token counts.
struct no_filter {
  LAMINA_HOST_DEVICE static constexpr bool keeps(double /*log_ratio*/,
                                                 double /*advantage*/) noexcept {
    return true;
  }
};

static_assert(token_filter<no_filter>);

LAMINA_NAMESPACE_END
