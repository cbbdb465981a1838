// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Did it move: after training, whether every selected tensor changed and every frozen one did not.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lamina/core/error.hpp"
#include "lamina/core/parameter.hpp"
#include "lamina/layers/backward_plan.hpp"
#include "lamina/layers/tensor_selection.hpp"
#include "lamina/optim/update_row.hpp"

LAMINA_NAMESPACE_BEGIN

/// What became of a tensor, against what the plan says.
enum class movement : std::uint8_t {
  moved,             // selected, and changed
  frozen,            // not selected, and bit for bit as it was
  selected_unmoved,  // selected, yet nothing changed: no gradient, or steps below its resolution
  frozen_moved,      // not selected, yet something wrote it
};

/// One tensor before and after.
struct tensor_audit {
  std::string name;
  index_t layer = outside_layers;
  parameter_role role = parameter_role::other;
  movement verdict = movement::frozen;
  index_t element_count = 0;
  /// Elements whose bits differ.
  index_t changed_count = 0;
  /// Elements that are infinite or NaN now; they count in no change below.
  index_t nonfinite_count = 0;
  /// Greatest absolute change of an element.
  double max_change = 0;
  /// L2 norm of the change.
  double l2_change = 0;
};

/// All tensors of a snapshot, in its order.
struct audit_report {
  std::vector<tensor_audit> tensors;

  index_t count(movement verdict) const noexcept {
    index_t found = 0;
    for (tensor_audit const& tensor : tensors) found += tensor.verdict == verdict ? 1 : 0;
    return found;
  }
  /// Everything selected moved, nothing frozen did, and every weight is finite.
  bool passed() const noexcept {
    for (tensor_audit const& tensor : tensors) {
      if (tensor.nonfinite_count > 0 || tensor.verdict == movement::selected_unmoved ||
          tensor.verdict == movement::frozen_moved) {
        return false;
      }
    }
    return true;
  }
};

/// Copies of weights by name: what audit compares with.
template <storage_scalar T>
class weight_snapshot {
 public:
  struct tensor {
    std::string name;
    std::vector<T> values;
  };

  /// Copies every weight of `parameters`, trained or not. Throws config_error if a name is empty or
  /// used twice.
  explicit weight_snapshot(std::vector<parameter_view<T>> const& parameters) {
    for (parameter_view<T> const& parameter : parameters) {
      if (parameter.name.empty() || find(parameter.name) != nullptr) {
        throw_config_error("weight_snapshot: the name \"", parameter.name,
                           "\" is empty or used twice, expected unique names");
      }
      tensors_.push_back({std::string(parameter.name),
                          std::vector<T>(parameter.weight.begin(), parameter.weight.end())});
    }
  }

  index_t size() const noexcept { return static_cast<index_t>(tensors_.size()); }
  /// The copy of a tensor, or null.
  tensor const* find(std::string_view name) const noexcept {
    for (tensor const& t : tensors_) {
      if (t.name == name) return &t;
    }
    return nullptr;
  }

  /// Puts every weight back, bit for bit. Throws config_error, before anything changes, unless
  /// `parameters` are the tensors that were copied, and shape_error if a size has changed.
  void restore(std::vector<parameter_view<T>> const& parameters) const {
    if (static_cast<index_t>(parameters.size()) != size()) {
      throw_config_error("weight_snapshot::restore: ", parameters.size(),
                         " parameters are given, the snapshot has ", size());
    }
    for (parameter_view<T> const& parameter : parameters) {
      tensor const* const copy = find(parameter.name);
      if (copy == nullptr) {
        throw_config_error("weight_snapshot::restore: the snapshot has no parameter ",
                           parameter.name);
      }
      if (static_cast<index_t>(copy->values.size()) != parameter.weight.size) {
        throw_shape_error("weight_snapshot::restore: ", parameter.name, " has ",
                          parameter.weight.size, " elements, its snapshot has ",
                          copy->values.size());
      }
    }
    for (parameter_view<T> const& parameter : parameters) {
      std::vector<T> const& values = find(parameter.name)->values;
      for (index_t i = 0; i < parameter.weight.size; ++i) {
        parameter.weight[i] = values[static_cast<std::size_t>(i)];
      }
    }
  }

 private:
  std::vector<tensor> tensors_;
};

template <storage_scalar T>
weight_snapshot(std::vector<parameter_view<T>> const&) -> weight_snapshot<T>;

namespace detail {

// is_selected(parameter): whether it was to be trained.
template <storage_scalar T, class IsSelected>
audit_report audit(weight_snapshot<T> const& before,
                   std::vector<parameter_view<T>> const& parameters,
                   IsSelected const& is_selected) {
  if (static_cast<index_t>(parameters.size()) != before.size()) {
    throw_config_error("audit: ", parameters.size(), " parameters are given, the snapshot has ",
                       before.size());
  }
  audit_report report;
  for (parameter_view<T> const& parameter : parameters) {
    auto const* const copy = before.find(parameter.name);
    if (copy == nullptr) {
      throw_config_error("audit: the snapshot has no parameter ", parameter.name);
    }
    for (tensor_audit const& seen : report.tensors) {
      if (seen.name == parameter.name) {
        throw_config_error("audit: ", parameter.name, " is given twice, expected unique names");
      }
    }
    vector_view<T const> const old = copy->values;
    if (old.size != parameter.weight.size) {
      throw_shape_error("audit: ", parameter.name, " has ", parameter.weight.size,
                        " elements, its snapshot has ", old.size);
    }
    tensor_audit result{.name = copy->name,
                        .layer = parameter.layer,
                        .role = parameter.role,
                        .element_count = old.size};
    double squares = 0;
    for (index_t i = 0; i < old.size; ++i) {
      double const now = widened<double>(parameter.weight[i]);
      if (!is_finite(now)) ++result.nonfinite_count;
      if (same_bits(old[i], parameter.weight[i])) continue;
      ++result.changed_count;
      double const change = std::fabs(now - widened<double>(old[i]));
      if (!is_finite(change)) continue;
      squares += change * change;
      if (change > result.max_change) result.max_change = change;
    }
    result.l2_change = std::sqrt(squares);
    bool const selected = is_selected(parameter);
    bool const moved = result.changed_count > 0;
    result.verdict = selected ? (moved ? movement::moved : movement::selected_unmoved)
                              : (moved ? movement::frozen_moved : movement::frozen);
    report.tensors.push_back(std::move(result));
  }
  return report;
}

}  // namespace detail

/// Compares the weights of `parameters` with a snapshot, bit for bit, and with what `plan` trains.
///
///   auto const before = lamina::weight_snapshot(lamina::all_parameters(model));
///   ...                                                            // train by plan
///   auto const report = lamina::audit(before, lamina::all_parameters(model), plan);
///
/// Throws config_error unless both hold the same names, and shape_error if a size has changed.
template <storage_scalar T>
audit_report audit(weight_snapshot<T> const& before,
                   std::vector<parameter_view<T>> const& parameters, backward_plan const& plan) {
  return detail::audit(before, parameters, [&](parameter_view<T> const& parameter) {
    return plan.weight_gradient(parameter.layer, parameter.role);
  });
}

/// The same for what was trained by a selection, which a plan may exceed.
template <storage_scalar T>
audit_report audit(weight_snapshot<T> const& before,
                   std::vector<parameter_view<T>> const& parameters,
                   tensor_selection const& selection) {
  return detail::audit(before, parameters, [&](parameter_view<T> const& parameter) {
    return selection.contains(as_tensor(parameter));
  });
}

LAMINA_NAMESPACE_END
