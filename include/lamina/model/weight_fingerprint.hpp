// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Whether weights have changed: a number made of all their bits, or one that the model keeps.
#pragma once

#include <concepts>
#include <cstdint>
#include <cstring>

#include "lamina/model/transformer.hpp"

LAMINA_NAMESPACE_BEGIN

/// A 64-bit number made of the bits of weights, fed piece by piece: another one for any change, but
/// for about one in 2^64; a change of one 64-bit word is always seen. Reads at about the speed of
/// memory. Not for adversaries, and not for files.
class weight_fingerprint {
 public:
  template <storage_scalar T>
  void add(vector_view<T const> weights) noexcept {
    auto const* bytes = reinterpret_cast<unsigned char const*>(weights.data);
    std::size_t const size = static_cast<std::size_t>(weights.size) * sizeof(T);
    std::size_t first = 0;
    for (; first + block_size <= size; first += block_size) add_block(bytes + first, block_size);
    if (first < size) add_block(bytes + first, size - first);
    size_ += size;
  }

  std::uint64_t value() const noexcept {
    std::uint64_t result = size_;
    for (std::uint64_t const lane : lanes_) result = mixed(result, lane);
    return result;
  }

 private:
  static constexpr std::size_t lane_count = 8;
  static constexpr std::size_t block_size = lane_count * sizeof(std::uint64_t);

  static constexpr std::uint64_t mixed(std::uint64_t lane, std::uint64_t word) noexcept {
    std::uint64_t const product = (lane ^ word) * 0x9e3779b97f4a7c15u;
    return product ^ product >> 29;
  }

  void add_block(unsigned char const* bytes, std::size_t size) noexcept {
    std::uint64_t words[lane_count] = {};
    std::memcpy(words, bytes, size);
    for (std::size_t i = 0; i < lane_count; ++i) lanes_[i] = mixed(lanes_[i], words[i]);
  }

  std::uint64_t lanes_[lane_count] = {};
  std::uint64_t size_ = 0;
};

/// A model that counts the changes of its weights itself.
template <class M>
concept versioned_model = layered_model<M> && requires(M const& model, index_t layer) {
  { model_traits<M>::weight_version(model, layer) } -> std::same_as<std::uint64_t>;
};

/// Reads all weights a prefix depends on: those of the layers below, and of what lies outside the
/// layers all but the final norm and the head. Sees every change, whoever made it. The parameter
/// views have to be readable by the host; a model that does not list its outer parameters
/// vouches for them itself.
struct fingerprint_guard {
  template <layered_model M>
  std::uint64_t operator()(M& model, index_t layer) const {
    weight_fingerprint fingerprint;
    auto const add = [&](auto const& parameter) {
      fingerprint.add(vector_view<model_scalar_t<M> const>(parameter.weight));
    };
    if constexpr (whole_model<M>) {
      for (auto const& parameter : model_traits<M>::outer_parameters(model)) {
        if (parameter.role != parameter_role::final_norm &&
            parameter.role != parameter_role::head) {
          add(parameter);
        }
      }
    }
    for (index_t below = 0; below < layer; ++below) {
      for (auto const& parameter : model_traits<M>::parameters(model, below)) add(parameter);
    }
    return fingerprint.value();
  }
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
