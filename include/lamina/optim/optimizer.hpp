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

#include "lamina/backend/backend_vector.hpp"
#include "lamina/core/error.hpp"
#include "lamina/core/parameter.hpp"
#include "lamina/layers/layer_rates.hpp"
#include "lamina/optim/detail/step_bodies.hpp"
#include "lamina/optim/state.hpp"

LAMINA_NAMESPACE_BEGIN

/// clip_norm of an optimizer that does not clip.
inline constexpr double no_clipping = std::numeric_limits<double>::infinity();

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
///                                the coefficients of a parameter's step number `step`, from 1;
///                                computed on the device where there is one
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
///
/// On a device, weights and gradients lie in its memory, and a step is three launches, however many
/// tensors there are: it allocates nothing, waits for nothing, and can be captured in a graph. What
/// allocates or passes values between host and device waits: construction, rebind, parked
/// parameters, checkpoints, read_status.
template <tensor_backend Backend, storage_scalar T, update_rule Rule>
class optimizer {
 public:
  using scalar_type = typename Backend::scalar_type;
  using options_type = typename Rule::options_type;
  using parameter_list = std::vector<parameter_view<T>>;
  /// What step() returns: on a device nothing, for nothing is known yet.
  using step_result = std::conditional_t<device_backend<Backend>, void, step_status>;

  static_assert(sizeof(T) <= sizeof(scalar_type),
                "lamina: an optimizer needs a backend whose scalar_type is at least as wide as the "
                "weights");

  /// Throws config_error for options that make no sense, no parameters, or names that are empty or
  /// used twice, shape_error if a gradient is not as large as its weight, and device_error if a
  /// device cannot use one of them.
  optimizer(Backend const& backend, parameter_list parameters, options_type const& options)
      : backend_(backend),
        options_(checked(options)),
        bound_(backend_, options_, checked(std::move(parameters))) {}
  /// Moves as its parts do; the moved-from optimizer may only be destroyed or assigned to.
  optimizer(optimizer&& other)
      : backend_(std::move(other.backend_)),
        options_(other.options_),
        bound_(std::move(other.bound_)),
        parked_(std::move(other.parked_)) {
    bind_moved();
  }
  optimizer& operator=(optimizer&& other) {
    backend_ = std::move(other.backend_);
    options_ = other.options_;
    bound_ = std::move(other.bound_);
    parked_ = std::move(other.parked_);
    bind_moved();
    return *this;
  }

  /// One step at the learning rate of the options.
  step_result step() { return step(options_.learning_rate); }

  /// One step at a learning rate from a schedule. A parameter of layer k moves at
  /// learning_rate * rates(k). With a gradient that is not finite nothing changes at all, and the
  /// status says so. Throws config_error unless the learning rate is finite and >= 0.
  step_result step(double learning_rate) {
    check_learning_rate(learning_rate);
    for (double const rate : bound_.rates) check_learning_rate(learning_rate * rate);
    return run(learning_rate, {});
  }

  /// One step at the learning rate that lies in the device's memory when the step comes to run [1]:
  /// a graph that was captured once follows a schedule. One that is negative or not finite skips
  /// the step. Throws shape_error unless it is one number, device_error if the device cannot use
  /// it.
  void step(vector_view<double const> learning_rate) requires device_backend<Backend> {
    if (learning_rate.size != 1) {
      throw_shape_error(Rule::name, "::step: learning_rate has ", learning_rate.size,
                        " elements, expected 1");
    }
    detail::check_reachable(backend_, "step", "learning_rate", learning_rate);
    run(0, learning_rate);
  }

  /// What the last step did [1], where bodies can use it: in a device's memory.
  vector_view<step_status const> status() const noexcept { return bound_.status.view(); }
  /// The same for the host. On a device it waits.
  step_status read_status() const { return read_element(backend_, status(), 0); }

  /// Trains another list from now on: the selection changed, or the host moved its tensors.
  ///
  /// moments::keep  what is remembered stays with its name. A parameter that leaves the list is
  ///                parked, in host memory, and goes on with its moments and step count when a
  ///                later rebind brings it back: a rotating selection ends up with the state of
  ///                every layer it visits. A name never trained before starts at zero.
  /// moments::drop  everything starts at zero, and nothing is parked.
  ///
  /// Throws as the constructor, and shape_error if a kept name has changed its size; the optimizer
  /// is as before then. Old and new state exist side by side for a moment.
  void rebind(parameter_list parameters, moments kept) {
    binding next(backend_, options_, checked(std::move(parameters)));
    optimizer_state<Backend>& state = next.state;
    std::vector<parked_parameter<scalar_type>> parked;
    if (kept == moments::keep) {
      state.take_over(bound_.state);
      state.take_over(parked_);
      for (index_t p = 0; p < bound_.state.size(); ++p) {
        if (state.find(bound_.state.name(p)) < 0) parked.push_back(bound_.state.parked(p));
      }
      parked.reserve(parked.size() + parked_.size());
      for (auto& p : parked_) {  // nothing throws from here on
        if (state.find(p.name) < 0) parked.push_back(std::move(p));
      }
    }
    bound_ = std::move(next);
    parked_ = std::move(parked);
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
  parameter_list const& parameters() const noexcept { return bound_.parameters; }
  /// What is remembered, for a checkpoint to write and to restore.
  optimizer_state<Backend> const& state() const noexcept { return bound_.state; }
  optimizer_state<Backend>& state() noexcept { return bound_.state; }
  /// What a slot of the state holds: a moment's name, or "master_weight".
  std::string_view slot_name(index_t slot) const noexcept {
    return slot < Rule::moment_count(options_) ? std::string_view(Rule::moment_names[slot])
                                               : std::string_view("master_weight");
  }

 private:
  using row_type = update_row<T, scalar_type>;
  using coefficient_type = typename Rule::template coefficients<scalar_type>;
  static_assert(std::is_trivially_copyable_v<options_type>,
                "lamina: the options of an update rule go where its steps are prepared, so they "
                "have to be trivially copyable");

  // Everything that belongs to one list of parameters.
  struct binding {
    binding(Backend const& backend, options_type const& options, parameter_list list)
        : parameters(std::move(list)),
          rates(rates_of(options, parameters)),
          state(backend, parameters, slot_count(options)),
          gradients(backend, parameters),
          rows(backend, row_count(parameters)),
          trained(backend, static_cast<index_t>(parameters.size())),
          coefficients(backend, trained.size()),
          rule_options(backend, 1),
          status(backend, 1) {
      std::vector<detail::trained_parameter> each;
      for (std::size_t p = 0; p < rates.size(); ++p) {
        each.push_back({rates[p], parameters[p].decays});
      }
      auto const cut = cut_rows(options);
      copy_elements(backend, each, trained.view());
      copy_elements(backend, {&options, 1}, rule_options.view());
      copy_elements(backend, cut, rows.view());
      wait(backend);
    }

    // Parameters and state cut into rows.
    std::vector<row_type> cut_rows(options_type const& options) {
      index_t const moment_count = Rule::moment_count(options);
      std::vector<row_type> result;
      for (std::size_t p = 0; p < parameters.size(); ++p) {
        parameter_view<T> const& parameter = parameters[p];
        index_t const index = static_cast<index_t>(p);
        auto const slot = [&](index_t s) { return state.values(index, s).data; };
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
          result.push_back(row);
        }
      }
      return result;
    }

    parameter_list parameters;
    std::vector<double> rates;
    optimizer_state<Backend> state;
    detail::gradient_rows<Backend, T> gradients;
    backend_vector<Backend, row_type> rows;
    backend_vector<Backend, detail::trained_parameter> trained;
    backend_vector<Backend, coefficient_type> coefficients;
    backend_vector<Backend, options_type> rule_options;
    backend_vector<Backend, step_status> status;
  };

  static index_t row_count(parameter_list const& parameters) {
    index_t count = 0;
    for (parameter_view<T> const& parameter : parameters) {
      count += (parameter.weight.size + elements_per_row - 1) / elements_per_row;
    }
    return count;
  }
  static std::vector<double> rates_of(options_type const& options,
                                      parameter_list const& parameters) {
    std::vector<double> rates;
    for (auto const& parameter : parameters) rates.push_back(options.rates(parameter.layer));
    return rates;
  }

  // Rows point into the state, and memory of a host may move with its owner.
  void bind_moved() {
    if constexpr (!device_backend<Backend>) {
      copy_elements(backend_, bound_.cut_rows(options_), bound_.rows.view());
    }
  }

  step_result run(double learning_rate, vector_view<double const> learning_rates) {
    binding& b = bound_;
    double greatest_rate = 0;
    for (double const rate : b.rates) greatest_rate = rate > greatest_rate ? rate : greatest_rate;
    b.gradients.square(backend_);
    backend_.executor().run(1, detail::plan_step_body<Rule, scalar_type>{
                                   .sums = b.gradients.sums(),
                                   .nonfinite_counts = b.gradients.nonfinite_counts(),
                                   .options = b.rule_options.view(),
                                   .parameters = b.trained.view(),
                                   .learning_rates = learning_rates,
                                   .learning_rate = learning_rate,
                                   .greatest_rate = greatest_rate,
                                   .step_counts = b.state.step_counts(),
                                   .coefficients = b.coefficients.view(),
                                   .status = b.status.view()});
    backend_.executor().run(b.rows.size(),
                            detail::apply_step_body<Rule, T, scalar_type>{
                                b.rows.view(), b.coefficients.view(), b.status.view()});
    if constexpr (!device_backend<Backend>) return read_status();
  }

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
    for (parameter_view<T> const& p : parameters) {
      static_cast<void>(options_.rates(p.layer));  // throws for a layer no model has
      detail::check_reach(Rule::name, backend_, "weight", p.name, p.weight);
      detail::check_reach(Rule::name, backend_, "gradient", p.name, p.gradient);
    }
    return parameters;
  }

  void check_parked(parked_parameter<scalar_type> const& parameter) const {
    if (parameter.name.empty() || state().find(parameter.name) >= 0) {
      throw_config_error(Rule::name, "::park: the name is \"", parameter.name,
                         "\", expected one of a parameter that is not trained now");
    }
    if (parameter.step_count < 0) {
      throw_config_error(Rule::name, "::park: the step count of ", parameter.name, " is ",
                         parameter.step_count, ", expected >= 0");
    }
    if (static_cast<index_t>(parameter.slots.size()) != state().slot_count()) {
      throw_shape_error(Rule::name, "::park: ", parameter.slots.size(), " slots are given for ",
                        parameter.name, ", expected ", state().slot_count());
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

  Backend backend_;
  options_type options_;
  binding bound_;
  std::vector<parked_parameter<scalar_type>> parked_;
};

LAMINA_NAMESPACE_END
