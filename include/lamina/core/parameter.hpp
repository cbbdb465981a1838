// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One tensor of a host model as lamina sees it: a stable name, where it sits, its memory.
#pragma once

#include <string_view>

#include "lamina/core/scalar.hpp"
#include "lamina/core/view.hpp"
#include "lamina/fwd.hpp"

LAMINA_NAMESPACE_BEGIN

/// A parameter and its gradient, both owned by the host.
///
/// name      unique in the model and stable over its life; optimizer state is keyed by it
/// layer     decoder layer, or outside_layers for embeddings, final norm and head
/// weight    flattened
/// gradient  same size as weight where the plan trains it; may be empty where it does not
/// decays    whether weight decay applies (by custom not to norms and biases)
template <storage_scalar T>
struct parameter_view {
  using scalar_type = T;

  std::string_view name;
  index_t layer = outside_layers;
  parameter_role role = parameter_role::other;
  vector_view<T> weight{};
  vector_view<T> gradient{};
  bool decays = true;
};

LAMINA_NAMESPACE_END
