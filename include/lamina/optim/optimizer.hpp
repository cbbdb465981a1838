// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The one optimizer loop: measure and clip the gradient, then hand every row of every trained
// parameter to an update rule.
#pragma once

#include <concepts>
#include <limits>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "lamina/backend/backend.hpp"
#include "lamina/core/error.hpp"
#include "lamina/core/parameter.hpp"
#include "lamina/layers/layer_rates.hpp"
#include "lamina/optim/gradient_norm.hpp"
#include "lamina/optim/state.hpp"
#include "lamina/optim/update_row.hpp"

LAMINA_NAMESPACE_BEGIN

/// clip_norm of an optimizer that does not clip.
inline constexpr double no_clipping = std::numeric_limits<double>::infinity();

/// What one step did.
struct step_status {
  /// The base learning rate of this step, before the per-layer multipliers.
  double learning_rate = 0;
  /// Global L2 norm of the trained gradients, before clipping.
  double gradient_norm = 0;
  /// What the gradients were multiplied with; 1 where nothing was clipped or the step was skipped.
  double clip_scale = 1;
  /// Gradient elements that are infinite or NaN.
  index_t nonfinite_count = 0;
  /// The norm is not finite: weights and state are as they were, bit for bit.
  bool skipped = false;
};

/// How an optimizer turns a gradient into a change of the weight: adamw_rule, sgd_rule, or a host's
/// own.
///
/// options_type                   aggregate; has at least learning_rate, clip_norm and rates
/// name                           what messages call the optimizer
/// moment_names                   names of the values the rule may keep per element, at most two
/// moment_count(options)          how many of these it keeps
/// check(options)                 throws config_error for options of its own that make no sense
/// coefficients<S>                what a step needs of one parameter, trivially copyable
/// prepare<S>(options, learning_rate, step, decays)
///                                the coefficients of a parameter's step number `step`, from 1
/// body<T, S>{rows, coefficients, gradient_scale}
///                                row body that updates rows[row] with coefficients[parameter]
template <class R>
concept update_rule = std::is_aggregate_v<typename R::options_type> &&
    requires(typename R::options_type const& options, index_t step, bool decays) {
  { options.learning_rate } -> std::convertible_to<double>;
  { options.clip_norm } -> std::convertible_to<double>;
  { options.rates } -> std::convertible_to<layer_rates>;
  {std::string_view(R::name)};
  {std::string_view(R::moment_names[0])};
  { R::moment_count(options) } -> std::same_as<index_t>;
  R::check(options);
  {
    R::template prepare<float>(options, 1.0, step, decays)
    } -> std::same_as<typename R::template coefficients<float>>;
  requires row_body<typename R::template body<float, float>>;
};

namespace detail {

// One option of an optimizer that must lie in [low, high), or be finite if high is infinite.
inline void check_option(std::string_view optimizer_name, std::string_view option, double value,
                         double low, double high) {
  if (is_finite(value) && value >= low && value < high) return;
  if (is_finite(high)) {
    throw_config_error(optimizer_name, ": ", option, " is ", value, ", expected ", low,
                       " <= ", option, " < ", high);
  }
  throw_config_error(optimizer_name, ": ", option, " is ", value, ", expected finite and >= ", low);
}

}  // namespace detail

/// Trains a list of parameters by a rule. Keeps state for these parameters; for others only if a
/// rebind asks for it, see parked().
///
/// Backend  where the state lives, what runs rows, and the precision S of state and arithmetic
/// T        what weights and gradients are stored in; where it is narrower than S, a master copy
///          of the weights is kept as one more slot of the state
///
/// Weights and gradients stay the host's; they must lie where they were when the optimizer was
/// made, or rebind says where they are now. Gradients are read, never written.
template <tensor_backend Backend, storage_scalar T, update_rule Rule>
class optimizer {
 public:
  using scalar_type = typename Backend::scalar_type;
  using options_type = typename Rule::options_type;
  using parameter_list = std::vector<parameter_view<T>>;

  static_assert(sizeof(T) <= sizeof(scalar_type),
                "lamina: an optimizer needs a backend whose scalar_type is at least as wide as the "
                "weights");

  /// Throws config_error for options that make no sense, no parameters, or names that are empty or
  /// used twice, and shape_error if a gradient is not as large as its weight.
  optimizer(Backend const& backend, parameter_list parameters, options_type const& options)
      : backend_(backend),
        options_(checked(options)),
        parameters_(checked(std::move(parameters))),
        state_(backend_, parameters_, slot_count(options_)) {
    bind();
  }
  /// Moves as its parts do; the moved-from optimizer may only be destroyed or assigned to.
  optimizer(optimizer&& other)
      : backend_(std::move(other.backend_)),
        options_(other.options_),
        parameters_(std::move(other.parameters_)),
        state_(std::move(other.state_)),
        parked_(std::move(other.parked_)) {
    bind();  // rows point into the state
  }
  optimizer& operator=(optimizer&& other) {
    backend_ = std::move(other.backend_);
    options_ = other.options_;
    parameters_ = std::move(other.parameters_);
    state_ = std::move(other.state_);
    parked_ = std::move(other.parked_);
    bind();
    return *this;
  }

  /// One step at the learning rate of the options.
  step_status step() { return step(options_.learning_rate); }

  /// One step at a learning rate from a schedule. A parameter of layer k moves at
  /// learning_rate * rates(k). With a gradient that is not finite nothing changes at all, and the
  /// status says so. Throws config_error unless the learning rate is finite and >= 0.
  step_status step(double learning_rate) {
    check_learning_rate(learning_rate);
    step_status status{.learning_rate = learning_rate};
    for (std::size_t p = 0; p < parameters_.size(); ++p) {
      double const rate = learning_rate * options_.rates(parameters_[p].layer);
      check_learning_rate(rate);
      coefficients_[p] = Rule::template prepare<scalar_type>(
          options_, rate, state_.step_count(static_cast<index_t>(p)) + 1, parameters_[p].decays);
    }
    gradient_norm_result const gradient = norm_.run(backend_);
    status.gradient_norm = gradient.norm;
    status.nonfinite_count = gradient.nonfinite_count;
    status.skipped = !is_finite(gradient.norm);
    if (status.skipped) return status;
    status.clip_scale = clip_scale(gradient.norm, options_.clip_norm);
    using body = typename Rule::template body<T, scalar_type>;
    backend_.executor().run(
        static_cast<index_t>(rows_.size()),
        body{rows_, coefficients_, static_cast<scalar_type>(status.clip_scale)});
    state_.count_step();
    return status;
  }

  /// Trains another list from now on: the selection changed, or the host moved its tensors.
  ///
  /// moments::keep  what is remembered stays with its name. A parameter that leaves the list is
  ///                parked, in host memory, and goes on with its moments and step count when a
  ///                later rebind brings it back: a rotating selection ends up with the state of
  ///                every layer it visits. A name never trained before starts at zero.
  /// moments::drop  everything starts at zero, and nothing is parked.
  ///
  /// Throws as the constructor, and shape_error if a kept name has changed its size; the optimizer
  /// is as before then.
  void rebind(parameter_list parameters, moments kept) {
    parameter_list list = checked(std::move(parameters));
    optimizer_state<Backend> state(backend_, list, slot_count(options_));
    std::vector<parked_parameter<scalar_type>> parked;
    if (kept == moments::keep) {
      state.take_over(state_);
      state.take_over(parked_);
      for (index_t p = 0; p < state_.size(); ++p) {
        if (state.find(state_.name(p)) < 0) parked.push_back(state_.parked(p));
      }
      parked.reserve(parked.size() + parked_.size());
      for (auto& p : parked_) {  // nothing throws from here on
        if (state.find(p.name) < 0) parked.push_back(std::move(p));
      }
    }
    parameters_ = std::move(list);
    state_ = std::move(state);
    parked_ = std::move(parked);
    bind();
  }

  /// What is remembered about parameters that are not trained now: part of a checkpoint, as state()
  /// is.
  std::vector<parked_parameter<scalar_type>> const& parked() const noexcept { return parked_; }
  /// Puts back what a checkpoint holds about a parameter that is not trained now, in place of
  /// anything parked under its name.
  ///
  /// Throws config_error if the parameter is trained now (state().restore is for those), has no
  /// name, a negative step count or a value that is not finite, and shape_error if it has not as
  /// many slots as the rule keeps, or slots of different sizes; nothing has changed then.
  void park(parked_parameter<scalar_type> parameter) {
    check_parked(parameter);
    for (auto& p : parked_) {
      if (p.name != parameter.name) continue;
      p = std::move(parameter);
      return;
    }
    parked_.push_back(std::move(parameter));
  }
  /// Frees what is parked: for a selection that changed for good.
  void forget_parked() noexcept { parked_.clear(); }

  options_type const& options() const noexcept { return options_; }
  parameter_list const& parameters() const noexcept { return parameters_; }
  /// What is remembered, for a checkpoint to write and to restore.
  optimizer_state<Backend> const& state() const noexcept { return state_; }
  optimizer_state<Backend>& state() noexcept { return state_; }
  /// What a slot of the state holds: a moment's name, or "master_weight".
  std::string_view slot_name(index_t slot) const noexcept {
    return slot < Rule::moment_count(options_) ? std::string_view(Rule::moment_names[slot])
                                               : std::string_view("master_weight");
  }

 private:
  using row_type = update_row<T, scalar_type>;

  static index_t slot_count(options_type const& options) {
    return Rule::moment_count(options) + (row_type::has_master ? 1 : 0);
  }
  static void check_learning_rate(double learning_rate) {
    detail::check_option(Rule::name, "learning_rate", learning_rate, 0.0, no_clipping);
  }
  static options_type const& checked(options_type const& options) {
    check_learning_rate(options.learning_rate);
    if (is_nan(options.clip_norm) || options.clip_norm <= 0) {
      throw_config_error(Rule::name, ": clip_norm is ", options.clip_norm,
                         ", expected > 0, or infinity for no clipping");
    }
    Rule::check(options);
    return options;
  }
  parameter_list checked(parameter_list parameters) const {
    detail::check_parameters(Rule::name, parameters);
    for (parameter_view<T> const& parameter : parameters) {
      static_cast<void>(options_.rates(parameter.layer));  // throws for a layer no model has
    }
    return parameters;
  }

  void check_parked(parked_parameter<scalar_type> const& parameter) const {
    if (parameter.name.empty() || state_.find(parameter.name) >= 0) {
      throw_config_error(Rule::name, "::park: the name is \"", parameter.name,
                         "\", expected one of a parameter that is not trained now");
    }
    if (parameter.step_count < 0) {
      throw_config_error(Rule::name, "::park: the step count of ", parameter.name, " is ",
                         parameter.step_count, ", expected >= 0");
    }
    if (static_cast<index_t>(parameter.slots.size()) != state_.slot_count()) {
      throw_shape_error(Rule::name, "::park: ", parameter.slots.size(), " slots are given for ",
                        parameter.name, ", expected ", state_.slot_count());
    }
    for (std::vector<scalar_type> const& slot : parameter.slots) {
      if (slot.size() != parameter.slots[0].size()) {
        throw_shape_error(Rule::name, "::park: the slots of ", parameter.name, " have ",
                          parameter.slots[0].size(), " and ", slot.size(), " elements");
      }
      for (scalar_type const value : slot) {
        if (is_finite(value)) continue;
        throw_config_error(Rule::name, "::park: a value for ", parameter.name, " is ", value,
                           ", expected finite");
      }
    }
  }

  // Cuts parameters and state into rows; everything has been checked.
  void bind() {
    index_t const moment_count = Rule::moment_count(options_);
    rows_.clear();
    for (std::size_t p = 0; p < parameters_.size(); ++p) {
      parameter_view<T> const& parameter = parameters_[p];
      index_t const index = static_cast<index_t>(p);
      auto const slot = [&](index_t s) { return state_.values(index, s).data; };
      for (index_t first = 0; first < parameter.weight.size; first += elements_per_row) {
        index_t const left = parameter.weight.size - first;
        row_type row;
        row.weights = parameter.weight.data + first;
        row.gradients = parameter.gradient.data + first;
        if (moment_count > 0) row.first = slot(0) + first;
        if (moment_count > 1) row.second = slot(1) + first;
        if constexpr (row_type::has_master) row.master = slot(moment_count) + first;
        row.size = left < elements_per_row ? left : elements_per_row;
        row.parameter = index;
        rows_.push_back(row);
      }
    }
    coefficients_.resize(parameters_.size());
    norm_ = detail::gradient_norm_pass<T>(parameters_);
  }

  Backend backend_;
  options_type options_;
  parameter_list parameters_;
  optimizer_state<Backend> state_;
  std::vector<parked_parameter<scalar_type>> parked_;
  std::vector<row_type> rows_;
  std::vector<typename Rule::template coefficients<scalar_type>> coefficients_;
  detail::gradient_norm_pass<T> norm_;
};

LAMINA_NAMESPACE_END
