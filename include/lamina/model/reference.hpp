// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A reference or old policy that shares with the model all that is never trained: only the
// trained tensors are copied, and take their place in the model while it is asked.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lamina/model/weight_fingerprint.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Copies and fingerprints of weights that the host can touch; tensors go by their index.
template <storage_scalar T>
class host_weights {
 public:
  using values_type = std::vector<T>;
  using view_type = vector_view<T>;

  void remember(std::size_t tensor, view_type weight) {
    if (tensor >= fingerprints_.size()) fingerprints_.resize(tensor + 1);
    fingerprints_[tensor] = fingerprint(weight);
  }
  bool changed(std::size_t tensor, view_type weight) const {
    return fingerprint(weight) != fingerprints_[tensor];
  }
  values_type copy_of(view_type weight) const { return {weight.begin(), weight.end()}; }
  void assign(values_type& values, view_type weight) const {
    std::copy(weight.begin(), weight.end(), values.begin());
  }
  void exchange(values_type& values, view_type weight) const noexcept {
    std::swap_ranges(values.begin(), values.end(), weight.data);
  }

 private:
  static std::uint64_t fingerprint(view_type weight) noexcept {
    weight_fingerprint result;
    result.add(vector_view<T const>(weight));
    return result.value();
  }

  std::vector<std::uint64_t> fingerprints_;
};

template <storage_scalar T>
struct exchange_body {
  vector_view<T> a, b;

  static constexpr row_schedule schedule = row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    index_t const first = row * elements_per_row, left = a.size - first;
    index_t const end = first + (left < elements_per_row ? left : elements_per_row);
    for (index_t i = first + lanes.lane(); i < end; i += lanes.count()) {
      T const value = a[i];
      a[i] = b[i];
      b[i] = value;
    }
  }
};

// The same in a device's memory. Only changed() waits.
template <device_backend Backend, storage_scalar T>
class device_weights {
 public:
  using values_type = device_vector<Backend, T>;
  using view_type = vector_view<T>;

  device_weights(Backend const& backend, std::size_t tensor_count)
      : backend_(backend),
        fingerprint_(backend),
        fingerprints_(backend, static_cast<index_t>(tensor_count)) {}

  void remember(std::size_t tensor, view_type weight) {
    take(weight);
    copy_elements(backend_, fingerprint_.on_device(),
                  fingerprints_.view().subview(static_cast<index_t>(tensor), 1));
  }
  bool changed(std::size_t tensor, view_type weight) const {
    take(weight);
    return fingerprint_.value() != fingerprints_.to_host(backend_)[tensor];
  }
  values_type copy_of(view_type weight) const {
    values_type values(backend_, weight.size);
    assign(values, weight);
    return values;
  }
  void assign(values_type& values, view_type weight) const {
    copy_elements(backend_, weight, values.view());
  }
  void exchange(values_type& values, view_type weight) const {
    backend_.executor().run((weight.size + elements_per_row - 1) / elements_per_row,
                            exchange_body<T>{values.view(), weight});
  }

 private:
  void take(view_type weight) const {
    fingerprint_.clear();
    fingerprint_.add(vector_view<T const>(weight));
  }

  Backend backend_;
  mutable device_fingerprint<Backend> fingerprint_;  // scratch
  device_vector<Backend, std::uint64_t> fingerprints_;
};

}  // namespace detail

/// The model as it was, in the bytes of what is trained.
///
///   lamina::frozen_copy reference(model, plan);                  // before the first step
///   ...
///   reference.with(model, [&] {                                  // the model is the reference
///     lamina::token_log_probs(backend, prefix.forward(model, tokens, plan), ...);
///   });                                                          // and the policy again
///
/// Weights are swapped in place, so a prefix_cache and everything else that frozen layers have
/// computed stays good, and no weight exists twice. Of each tensor that is not copied it remembers
/// a fingerprint: what is trained without having been copied is found by check and extend.
///
/// Where weights lie in a device's memory, its backend comes first, copies are kept there too, and
/// only check and extend wait:
///
///   lamina::frozen_copy reference(backend, model, plan);
///
/// Memory  who copies and compares weights; deduced
template <layered_model M, class Memory = detail::host_weights<model_scalar_t<M>>>
class frozen_copy {
 public:
  using scalar_type = model_scalar_t<M>;

  /// Copies what is trained: by a backward_plan, or of a tensor_selection.
  /// Throws as trained_parameters.
  template <class Trained>
  frozen_copy(M& model, Trained const& trained) {
    copy(model, marked(model, trained));
  }
  /// The same on a device. Throws also device_error if the device cannot use a weight.
  template <device_backend Backend, class Trained>
  frozen_copy(Backend const& backend, M& model, Trained const& trained)
      : memory_(backend, checked(backend, model)) {
    copy(model, marked(model, trained));
  }

  /// Number of elements copied: those of the tensors that were ever trained.
  index_t element_count() const noexcept {
    index_t count = 0;
    for (tensor const& t : tensors_) count += t.copied() ? t.size : 0;
    return count;
  }

  /// Copies what is trained besides: the selection grows, or moves to other layers. To be called
  /// before the first step that trains it.
  /// Throws config_error, and copies nothing, if one of these tensors is not what it was when this
  /// copy was made: it is too late then.
  template <class Trained>
  void extend(M& model, Trained const& trained) {
    refuse_in_use("extend");
    parameter_list const parameters = listed("extend", model);
    std::vector<bool> added = marked(model, trained);
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      added[i] = added[i] && !tensors_[i].copied();
      if (added[i]) refuse_changed("extend", i, parameters[i]);
    }
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (added[i]) tensors_[i].values = memory_.copy_of(parameters[i].weight);
    }
  }

  /// Takes over the model as it is now: what an old policy does after each batch of rollouts.
  void refresh(M& model) {
    refuse_in_use("refresh");
    parameter_list const parameters = listed("refresh", model);
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      memory_.remember(i, parameters[i].weight);
      if (tensors_[i].copied()) memory_.assign(*tensors_[i].values, parameters[i].weight);
    }
  }

  /// Calls f() while the model has the copied weights, and returns what it returns. Afterwards,
  /// also if f throws, every weight is what it was, bit for bit. f may run the model, but not train
  /// it. Throws config_error if the model is not the one that was copied, or inside another with of
  /// this copy.
  template <class F>
  decltype(auto) with(M& model, F&& f) {
    refuse_in_use("with");
    parameter_list const parameters = listed("with", model);
    struct exchange {
      frozen_copy& copy;
      parameter_list const& parameters;
      exchange(frozen_copy& c, parameter_list const& p) : copy(c), parameters(p) {
        copy.swap(parameters);
      }
      exchange(exchange const&) = delete;
      ~exchange() noexcept(false) { copy.swap(parameters); }  // a device may refuse the launch
    } const exchanged(*this, parameters);
    return std::forward<F>(f)();
  }

  /// Throws config_error if a tensor that is shared has changed since the copy was made: the model
  /// in `with` would not be the reference. Reads every shared weight.
  void check(M& model) const {
    refuse_in_use("check");
    parameter_list const parameters = listed("check", model);
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (!tensors_[i].copied()) refuse_changed("check", i, parameters[i]);
    }
  }

 private:
  struct tensor {
    std::string name;
    index_t size;
    std::optional<typename Memory::values_type> values;  // none: shared

    bool copied() const noexcept { return values.has_value(); }
  };
  using parameter_list = std::vector<parameter_view<scalar_type>>;

  // Which of all parameters are trained; both lists are in the same order.
  template <class Trained>
  static std::vector<bool> marked(M& model, Trained const& trained) {
    parameter_list const some = trained_parameters(model, trained);
    std::vector<bool> marks;
    std::size_t next = 0;
    for (auto const& parameter : all_parameters(model)) {
      marks.push_back(next < some.size() && some[next].name == parameter.name);
      if (marks.back()) ++next;
    }
    return marks;
  }

  void copy(M& model, std::vector<bool> const& copied) {
    for (auto const& parameter : all_parameters(model)) {
      std::size_t const index = tensors_.size();
      memory_.remember(index, parameter.weight);
      tensors_.push_back({std::string(parameter.name), parameter.weight.size, std::nullopt});
      if (copied[index]) tensors_.back().values = memory_.copy_of(parameter.weight);
    }
  }
  // The number of tensors, which the device can use.
  template <class Backend>
  static std::size_t checked(Backend const& backend, M& model) {
    parameter_list const parameters = all_parameters(model);
    for (auto const& p : parameters) {
      detail::check_reach("frozen_copy", backend, "weight", p.name, p.weight);
    }
    return parameters.size();
  }

  // The model's parameters, which must be those that were copied.
  parameter_list listed(char const* function, M& model) const {
    parameter_list parameters = all_parameters(model);
    bool same = parameters.size() == tensors_.size();
    for (std::size_t i = 0; same && i < tensors_.size(); ++i) {
      same =
          parameters[i].name == tensors_[i].name && parameters[i].weight.size == tensors_[i].size;
    }
    if (!same) {
      throw_config_error("frozen_copy::", function,
                         ": the model does not list the tensors that were copied");
    }
    return parameters;
  }

  void refuse_in_use(char const* function) const {
    if (in_use_) {
      throw_config_error("frozen_copy::", function, ": the model has the copied weights already");
    }
  }
  void refuse_changed(char const* function, std::size_t index,
                      parameter_view<scalar_type> const& parameter) const {
    if (memory_.changed(index, parameter.weight)) {
      throw_config_error("frozen_copy::", function, ": ", parameter.name,
                         " has changed since the copy was made, and was not copied");
    }
  }

  void swap(parameter_list const& parameters) {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (tensors_[i].copied()) memory_.exchange(*tensors_[i].values, parameters[i].weight);
    }
    in_use_ = !in_use_;
  }

  Memory memory_;
  std::vector<tensor> tensors_;
  bool in_use_ = false;
};

template <layered_model M, class Trained>
frozen_copy(M&, Trained const&) -> frozen_copy<M>;
template <device_backend Backend, layered_model M, class Trained>
frozen_copy(Backend const&, M&, Trained const&)
    -> frozen_copy<M, detail::device_weights<Backend, model_scalar_t<M>>>;

LAMINA_NAMESPACE_END
