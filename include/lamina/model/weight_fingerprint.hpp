// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Whether weights have changed: a number made of all their bits, or one that the model keeps.
#pragma once

#include <concepts>
#include <cstdint>
#include <cstring>

#include "lamina/backend/backend_vector.hpp"
#include "lamina/model/transformer.hpp"
#include "lamina/optim/update_row.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

LAMINA_HOST_DEVICE constexpr std::uint64_t mixed(std::uint64_t state, std::uint64_t word) noexcept {
  std::uint64_t const product = (state ^ word) * 0x9e3779b97f4a7c15u;
  return product ^ product >> 29;
}

// The sum of the lanes' words modulo 2^64. Lanes add doubles: three parts of a word add up without
// rounding.
template <lane_group Lanes>
LAMINA_HOST_DEVICE std::uint64_t sum_of_words(Lanes lanes, std::uint64_t word) {
  constexpr int width = 22;
  std::uint64_t sum = 0;
  for (int first = 0; first < 64; first += width) {
    std::uint64_t const part = word >> first & ((std::uint64_t{1} << width) - 1);
    sum += static_cast<std::uint64_t>(lanes.sum(static_cast<double>(part))) << first;
  }
  return sum;
}

// partial[row] = a sum over some of the weights, whose terms depend on place and bits. A sum, so
// that it does not matter which lane adds what.
template <storage_scalar T>
struct fingerprint_body {
  vector_view<T const> weights;
  vector_view<std::uint64_t> partial;

  static constexpr row_schedule schedule = row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    std::uint64_t sum = 0;
    index_t const stride = partial.size * elements_per_row;
    for (index_t first = row * elements_per_row; first < weights.size; first += stride) {
      index_t const left = weights.size - first;
      index_t const count = left < elements_per_row ? left : elements_per_row;
      for (index_t i = lanes.lane(); i < count; i += lanes.count()) {
        auto const place = static_cast<std::uint64_t>(first + i + 1) * 0xd1342543de82ef95u;
        sum += mixed(place, bits_of(weights[first + i]));
      }
    }
    sum = sum_of_words(lanes, sum);
    if (lanes.lane() == 0) partial[row] = sum;
  }
};

template <class T>
struct clear_body {
  vector_view<T> values;
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    if (lanes.lane() == 0) values[row] = T{};
  }
};

// total[0] = what it was, and the sum of `partial`.
struct fold_fingerprint_body {
  vector_view<std::uint64_t const> partial;
  vector_view<std::uint64_t> total;

  static constexpr row_schedule schedule = row_schedule::block;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    std::uint64_t sum = 0;
    for (index_t i = lanes.lane(); i < partial.size; i += lanes.count()) sum += partial[i];
    sum = sum_of_words(lanes, sum);
    if (lanes.lane() == 0) total[row] = mixed(total[row], sum);
  }
};

}  // namespace detail

/// A 64-bit number made of the bits of weights, fed piece by piece: another one for any change, but
/// for about one in 2^64; a change of one 64-bit word is always seen. Reads at about the speed of
/// memory. Not for adversaries, and not for files.
class weight_fingerprint {
 public:
  template <storage_scalar T>
  void add(vector_view<T const> weights) noexcept {
    auto const* bytes = reinterpret_cast<unsigned char const*>(weights.data);
    std::size_t const size = static_cast<std::size_t>(weights.size) * sizeof(T);
    lane_values lanes = lanes_;  // the loop keeps its own in registers
    std::size_t first = 0;
    for (; first + block_size <= size; first += block_size) add_block(lanes, bytes + first);
    if (first < size) {
      unsigned char last[block_size] = {};
      std::memcpy(last, bytes + first, size - first);
      add_block(lanes, last);
    }
    lanes_ = lanes;
    size_ += size;
  }

  std::uint64_t value() const noexcept {
    std::uint64_t result = size_;
    for (std::uint64_t const lane : lanes_.values) result = detail::mixed(result, lane);
    return result;
  }

 private:
  // As many as it takes to keep up with memory: fewer wait for their own products.
  static constexpr std::size_t lane_count = 32;
  static constexpr std::size_t block_size = lane_count * sizeof(std::uint64_t);

  struct lane_values {
    std::uint64_t values[lane_count] = {};
  };

  static void add_block(lane_values& lanes, unsigned char const* bytes) noexcept {
    for (std::size_t i = 0; i < lane_count; ++i) {
      std::uint64_t word;
      std::memcpy(&word, bytes + i * sizeof word, sizeof word);
      lanes.values[i] = detail::mixed(lanes.values[i], word);
    }
  }

  lane_values lanes_;
  std::uint64_t size_ = 0;
};

/// The same of weights in a device's memory, where it is made and kept; another number than the
/// host's. Only value() waits.
template <device_backend Backend>
class device_fingerprint {
 public:
  explicit device_fingerprint(Backend const& backend)
      : backend_(backend), partial_(backend, most_rows), total_(backend, 1) {}

  /// As if nothing had been added.
  void clear() { backend_.executor().run(1, detail::clear_body<std::uint64_t>{total_.view()}); }
  template <storage_scalar T>
  void add(vector_view<T const> weights) {
    index_t const rows = (weights.size + elements_per_row - 1) / elements_per_row;
    auto const partial = partial_.view().subview(0, rows < most_rows ? rows : most_rows);
    backend_.executor().run(partial.size, detail::fingerprint_body<T>{weights, partial});
    backend_.executor().run(1, detail::fold_fingerprint_body{partial, total_.view()});
  }
  /// The number [1] where bodies and copies can use it.
  vector_view<std::uint64_t const> on_device() const noexcept { return total_.view(); }
  /// The number for the host. Waits.
  std::uint64_t value() const { return total_.to_host(backend_)[0]; }

 private:
  static constexpr index_t most_rows = 1024;  // enough to occupy a device

  Backend backend_;
  device_vector<Backend, std::uint64_t> partial_, total_;
};

/// A model that counts the changes of its weights itself.
template <class M>
concept versioned_model = layered_model<M> && requires(M const& model, index_t layer) {
  { model_traits<M>::weight_version(model, layer) } -> std::same_as<std::uint64_t>;
};

namespace detail {
// Calls add(weights) for all weights a prefix depends on: those of the layers below, and of what
// lies outside the layers all but the final norm and the head.
template <layered_model M, class Add>
void for_each_prefix_weight(M& model, index_t layer, Add const& add) {
  using view = vector_view<model_scalar_t<M> const>;
  if constexpr (whole_model<M>) {
    for (auto const& parameter : model_traits<M>::outer_parameters(model)) {
      if (parameter.role != parameter_role::final_norm && parameter.role != parameter_role::head) {
        add(view(parameter.weight));
      }
    }
  }
  for (index_t below = 0; below < layer; ++below) {
    for (auto const& parameter : model_traits<M>::parameters(model, below)) {
      add(view(parameter.weight));
    }
  }
}
}  // namespace detail

/// Reads all weights a prefix depends on: those of the layers below, and of what lies outside the
/// layers all but the final norm and the head. Sees every change, whoever made it. The parameter
/// views have to be readable by the host; a model that does not list its outer parameters
/// vouches for them itself.
struct fingerprint_guard {
  template <layered_model M>
  std::uint64_t operator()(M& model, index_t layer) const {
    weight_fingerprint fingerprint;
    detail::for_each_prefix_weight(model, layer, [&](auto weights) { fingerprint.add(weights); });
    return fingerprint.value();
  }
};

/// The same for weights in a device's memory. Waits for the device at every use of the cache.
template <device_backend Backend>
class device_fingerprint_guard {
 public:
  explicit device_fingerprint_guard(Backend const& backend) : fingerprint_(backend) {}

  template <layered_model M>
  std::uint64_t operator()(M& model, index_t layer) {
    fingerprint_.clear();
    detail::for_each_prefix_weight(model, layer, [&](auto weights) { fingerprint_.add(weights); });
    return fingerprint_.value();
  }

 private:
  device_fingerprint<Backend> fingerprint_;
};

/// Asks the model for the versions of the same weights. Reads no weight; sees the changes that the
/// model counts.
struct version_guard {
  template <versioned_model M>
  std::uint64_t operator()(M& model, index_t layer) const {
    std::uint64_t versions = model_traits<M>::weight_version(model, outside_layers);
    for (index_t below = 0; below < layer; ++below) {
      versions = versions * 0x9e3779b97f4a7c15u + model_traits<M>::weight_version(model, below);
    }
    return versions;
  }
};

/// How a model's prefix is guarded unless the host says otherwise.
template <layered_model M>
using default_guard = std::conditional_t<versioned_model<M>, version_guard, fingerprint_guard>;

LAMINA_NAMESPACE_END
