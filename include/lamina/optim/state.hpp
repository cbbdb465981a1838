// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What an optimizer remembers: only for the parameters it trains, found by their stable names.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lamina/backend/backend_vector.hpp"
#include "lamina/core/error.hpp"
#include "lamina/core/parameter.hpp"

LAMINA_NAMESPACE_BEGIN

/// What becomes of an optimizer's state when it trains another list of parameters: it stays with
/// their names, also of those that are not trained for a while, or it is forgotten.
enum class moments : bool { keep, drop };

/// What is remembered about a parameter that is not trained now. In host memory.
template <real S>
struct parked_parameter {
  std::string name;
  index_t step_count = 0;
  std::vector<std::vector<S>> slots;  // [slots][elements]
};

namespace detail {

// Whatever would make an update wrong or a name ambiguous, found before anything is allocated.
template <storage_scalar T>
void check_parameters(std::string_view function, std::vector<parameter_view<T>> const& parameters) {
  if (parameters.empty()) {
    throw_config_error(function, ": parameters is empty, expected at least one tensor to train");
  }
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    parameter_view<T> const& parameter = parameters[i];
    if (parameter.name.empty()) {
      throw_config_error(function, ": the name of parameter ", i,
                         " is empty, expected a name that is unique in the model");
    }
    if (parameter.weight.empty()) {
      throw_shape_error(function, ": the weight of ", parameter.name,
                        " is empty, expected at least one element");
    }
    if (parameter.gradient.size != parameter.weight.size) {
      throw_shape_error(function, ": the gradient of ", parameter.name, " has ",
                        parameter.gradient.size, " elements, its weight has ",
                        parameter.weight.size);
    }
    for (std::size_t j = 0; j < i; ++j) {
      if (parameters[j].name == parameter.name) {
        throw_config_error(function, ": the name ", parameter.name,
                           " is used by two parameters, expected unique names");
      }
      if (parameters[j].weight.data == parameter.weight.data) {
        throw_config_error(function, ": ", parameters[j].name, " and ", parameter.name,
                           " are the same weights, expected every tensor once");
      }
    }
  }
}

}  // namespace detail

/// Several values for each element of each trained parameter (the slots: moments, and a master copy
/// of narrow weights), and the steps each parameter has seen. All slots lie in one matrix of the
/// backend, [slots, elements].
///
/// A checkpoint walks the parameters and writes what parked() copies; restore brings one parameter
/// back by its name. On a device, values() are in its memory, and whatever brings values or step
/// counts to the host or takes them from there waits for the stream.
template <tensor_backend Backend>
class optimizer_state {
 public:
  using scalar_type = typename Backend::scalar_type;

  /// Zeros, for parameters that detail::check_parameters has seen.
  template <storage_scalar T>
  optimizer_state(Backend const& backend, std::vector<parameter_view<T>> const& parameters,
                  index_t slot_count)
      : optimizer_state(backend, layout_of(parameters), slot_count) {}

  /// Number of parameters.
  index_t size() const noexcept { return static_cast<index_t>(entries_.size()); }
  /// Values kept for each element.
  index_t slot_count() const noexcept { return slot_count_; }
  /// Elements of all parameters; the state holds slot_count() times as many values.
  index_t element_count() const noexcept {
    index_t count = 0;
    for (entry const& e : entries_) count += e.size;
    return count;
  }

  std::string_view name(index_t parameter) const { return at(parameter).name; }
  index_t element_count(index_t parameter) const { return at(parameter).size; }
  /// Steps this parameter has been trained for: its own count, since parameters may join later.
  index_t step_count(index_t parameter) const {
    static_cast<void>(at(parameter));
    return read_element(backend_, step_counts_.view(), parameter);
  }
  /// The same for all parameters, where bodies count.
  vector_view<index_t> step_counts() noexcept { return step_counts_.view(); }
  /// One slot of one parameter [elements].
  vector_view<scalar_type const> values(index_t parameter, index_t slot) const {
    return Backend::view(storage_).row(slot).subview(at(parameter).offset, at(parameter).size);
  }
  vector_view<scalar_type> values(index_t parameter, index_t slot) {
    return Backend::view(storage_).row(slot).subview(at(parameter).offset, at(parameter).size);
  }
  /// The index of a name, or -1.
  index_t find(std::string_view name) const noexcept {
    for (index_t i = 0; i < size(); ++i) {
      if (at(i).name == name) return i;
    }
    return -1;
  }

  /// Puts back what a checkpoint holds about one parameter: its step count, and its slots in order.
  ///
  /// Throws config_error if no parameter has this name, the step count is negative or a value is
  /// not finite, and shape_error if the number of slots or of elements differs; nothing has changed
  /// then.
  void restore(std::string_view name, index_t step_count,
               std::vector<vector_view<scalar_type const>> const& slots) {
    index_t const parameter = find(name);
    if (parameter < 0) {
      throw_config_error("optimizer_state::restore: no trained parameter is named ", name);
    }
    if (step_count < 0) {
      throw_config_error("optimizer_state::restore: the step count of ", name, " is ", step_count,
                         ", expected >= 0");
    }
    if (static_cast<index_t>(slots.size()) != slot_count_) {
      throw_shape_error("optimizer_state::restore: ", slots.size(), " slots are given for ", name,
                        ", expected ", slot_count_);
    }
    for (vector_view<scalar_type const> const slot : slots) {
      if (slot.size != at(parameter).size) {
        throw_shape_error("optimizer_state::restore: a slot of ", slot.size,
                          " elements is given for ", name, ", expected ", at(parameter).size);
      }
      for (scalar_type const value : slot) {
        if (!is_finite(value)) {
          throw_config_error("optimizer_state::restore: a value for ", name, " is ", value,
                             ", expected finite");
        }
      }
    }
    for (index_t slot = 0; slot < slot_count_; ++slot) {
      copy(slots[static_cast<std::size_t>(slot)], values(parameter, slot));
    }
    copy({&step_count, 1}, step_counts().subview(parameter, 1));
    wait(backend_);
  }

  /// Takes over what `old` holds about the parameters of the same name; the others stay at zero.
  /// Throws shape_error if a name now has another size; nothing has changed then.
  void take_over(optimizer_state const& old) {
    for (entry const& e : entries_) {
      index_t const before = old.find(e.name);
      if (before >= 0) check_size(e, old.at(before).size);
    }
    for (index_t i = 0; i < size(); ++i) {
      index_t const before = old.find(at(i).name);
      if (before < 0) continue;
      copy(old.step_counts_.view().subview(before, 1), step_counts().subview(i, 1));
      for (index_t slot = 0; slot < slot_count_; ++slot) {
        copy(old.values(before, slot), values(i, slot));
      }
    }
  }

  /// The same for what is parked.
  void take_over(std::vector<parked_parameter<scalar_type>> const& parked) {
    for (auto const& p : parked) {
      index_t const now = find(p.name);
      if (now >= 0 && slot_count_ > 0) {
        check_size(at(now), static_cast<index_t>(p.slots[0].size()));
      }
    }
    for (auto const& p : parked) {
      index_t const now = find(p.name);
      if (now < 0) continue;
      copy({&p.step_count, 1}, step_counts().subview(now, 1));
      for (index_t slot = 0; slot < slot_count_; ++slot) {
        copy(p.slots[static_cast<std::size_t>(slot)], values(now, slot));
      }
    }
    wait(backend_);
  }

  /// A copy of what is remembered about one parameter.
  parked_parameter<scalar_type> parked(index_t parameter) const {
    auto const count = static_cast<std::size_t>(slot_count_);
    auto const size = static_cast<std::size_t>(at(parameter).size);
    parked_parameter<scalar_type> result{at(parameter).name, step_count(parameter),
                                         std::vector(count, std::vector<scalar_type>(size))};
    for (std::size_t slot = 0; slot < count; ++slot) {
      copy(values(parameter, static_cast<index_t>(slot)),
           vector_view<scalar_type>(result.slots[slot]));
    }
    wait(backend_);
    return result;
  }

 private:
  struct entry {
    std::string name;  // a copy: the host's own may move with its tensors
    index_t size = 0;
    index_t offset = 0;
  };

  optimizer_state(Backend const& backend, std::vector<entry> entries, index_t slot_count)
      : backend_(backend),
        entries_(std::move(entries)),
        slot_count_(slot_count),
        storage_(backend.make_matrix(slot_count, slot_count == 0 ? 0 : padded_count(entries_))),
        step_counts_(backend, size()) {}

  template <storage_scalar T>
  static std::vector<entry> layout_of(std::vector<parameter_view<T>> const& parameters) {
    std::vector<entry> entries;
    entries.reserve(parameters.size());
    for (parameter_view<T> const& parameter : parameters) {
      entries.push_back(
          {std::string(parameter.name), parameter.weight.size, padded_count(entries)});
    }
    return entries;
  }
  // Where the next parameter starts: multiples of 16 elements, so that no two share a cache line.
  static index_t padded_count(std::vector<entry> const& entries) noexcept {
    if (entries.empty()) return 0;
    return (entries.back().offset + entries.back().size + 15) / 16 * 16;
  }
  static void check_size(entry const& e, index_t old_size) {
    if (old_size == e.size) return;
    throw_shape_error("rebind: ", e.name, " has ", e.size, " elements, its state has ", old_size);
  }
  template <class T>
  void copy(std::type_identity_t<vector_view<T const>> from, vector_view<T> to) const {
    copy_elements(backend_, from, to);
  }
  entry const& at(index_t parameter) const {
    LAMINA_ASSERT(parameter >= 0 && parameter < size());
    return entries_[static_cast<std::size_t>(parameter)];
  }

  Backend backend_;
  std::vector<entry> entries_;
  index_t slot_count_;
  typename Backend::matrix_type storage_;
  backend_vector<Backend, index_t> step_counts_;
};

LAMINA_NAMESPACE_END
