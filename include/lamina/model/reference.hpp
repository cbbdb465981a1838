// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A reference or old policy that shares with the model all that is never trained: only the
// trained tensors are copied, and take their place in the model while it is asked.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "lamina/model/weight_fingerprint.hpp"

LAMINA_NAMESPACE_BEGIN

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
/// a fingerprint: what is trained without having been copied is found by check and extend. The
/// parameter views have to be readable and writable by the host.
template <layered_model M>
class frozen_copy {
 public:
  using scalar_type = model_scalar_t<M>;

  /// Copies what is trained: by a backward_plan, or of a tensor_selection.
  /// Throws as trained_parameters.
  template <class Trained>
  frozen_copy(M& model, Trained const& trained) {
    std::vector<bool> const copied = marked(model, trained);
    for (auto const& parameter : all_parameters(model)) {
      tensors_.push_back(
          {std::string(parameter.name), parameter.weight.size, fingerprint(parameter),
           copied[tensors_.size()] ? copy_of(parameter) : std::vector<scalar_type>{}});
    }
  }

  /// Number of elements copied: those of the tensors that were ever trained.
  index_t element_count() const noexcept {
    index_t count = 0;
    for (tensor const& t : tensors_) count += static_cast<index_t>(t.values.size());
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
      if (added[i]) tensors_[i].values = copy_of(parameters[i]);
    }
  }

  /// Takes over the model as it is now: what an old policy does after each batch of rollouts.
  void refresh(M& model) {
    refuse_in_use("refresh");
    parameter_list const parameters = listed("refresh", model);
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      tensors_[i].fingerprint = fingerprint(parameters[i]);
      if (tensors_[i].copied()) {
        std::copy(parameters[i].weight.begin(), parameters[i].weight.end(),
                  tensors_[i].values.begin());
      }
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
      ~exchange() { copy.swap(parameters); }
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
    std::uint64_t fingerprint;
    std::vector<scalar_type> values;  // empty: shared

    bool copied() const noexcept { return !values.empty(); }
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

  static std::uint64_t fingerprint(parameter_view<scalar_type> const& parameter) {
    weight_fingerprint result;
    result.add(vector_view<scalar_type const>(parameter.weight));
    return result.value();
  }
  static std::vector<scalar_type> copy_of(parameter_view<scalar_type> const& parameter) {
    return {parameter.weight.begin(), parameter.weight.end()};
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
    if (fingerprint(parameter) != tensors_[index].fingerprint) {
      throw_config_error("frozen_copy::", function, ": ", parameter.name,
                         " has changed since the copy was made, and was not copied");
    }
  }

  void swap(parameter_list const& parameters) noexcept {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (!tensors_[i].copied()) continue;
      std::swap_ranges(tensors_[i].values.begin(), tensors_[i].values.end(),
                       parameters[i].weight.data);
    }
    in_use_ = !in_use_;
  }

  std::vector<tensor> tensors_;
  bool in_use_ = false;
};

template <layered_model M, class Trained>
frozen_copy(M&, Trained const&) -> frozen_copy<M>;

LAMINA_NAMESPACE_END
