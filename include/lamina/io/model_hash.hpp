// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A number that says which weights these are: hashes of tensors, and their sum, which follows a
// change of some tensors without a look at the others.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/core/error.hpp"
#include "lamina/core/parameter.hpp"
#include "lamina/io/raw_tensor.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

inline constexpr std::uint64_t xxh_primes[] = {0x9E3779B185EBCA87u, 0xC2B2AE3D27D4EB4Fu,
                                               0x165667B19E3779F9u, 0x85EBCA77C2B2AE63u,
                                               0x27D4EB2F165667C5u};

template <class Word>
Word read_word(char const* place) noexcept {
  Word word;
  std::memcpy(&word, place, sizeof word);
  return word;
}

constexpr std::uint64_t xxh_round(std::uint64_t lane, std::uint64_t word) noexcept {
  return std::rotl(lane + word * xxh_primes[1], 31) * xxh_primes[0];
}

constexpr std::uint64_t xxh_merge(std::uint64_t hash, std::uint64_t lane) noexcept {
  return (hash ^ xxh_round(0, lane)) * xxh_primes[0] + xxh_primes[3];
}

}  // namespace detail

/// XXH64: several GB/s. Finds accidents, not attacks: who wants to can make two texts of one hash.
/// Source: Cyan4973/xxHash, doc/xxhash_spec.md, "XXH64 Algorithm Description".
inline std::uint64_t xxh64(std::string_view bytes, std::uint64_t seed = 0) noexcept {
  using detail::read_word;
  using detail::xxh_merge;
  using detail::xxh_round;
  auto const& prime = detail::xxh_primes;
  char const* place = bytes.data();
  std::size_t left = bytes.size();
  std::uint64_t hash = seed + prime[4];
  if (left >= 32) {
    std::uint64_t a = seed + prime[0] + prime[1], b = seed + prime[1], c = seed,
                  d = seed - prime[0];
    for (; left >= 32; left -= 32, place += 32) {
      a = xxh_round(a, read_word<std::uint64_t>(place));
      b = xxh_round(b, read_word<std::uint64_t>(place + 8));
      c = xxh_round(c, read_word<std::uint64_t>(place + 16));
      d = xxh_round(d, read_word<std::uint64_t>(place + 24));
    }
    hash = std::rotl(a, 1) + std::rotl(b, 7) + std::rotl(c, 12) + std::rotl(d, 18);
    hash = xxh_merge(xxh_merge(xxh_merge(xxh_merge(hash, a), b), c), d);
  }
  hash += bytes.size();
  for (; left >= 8; left -= 8, place += 8) {
    hash =
        std::rotl(hash ^ xxh_round(0, read_word<std::uint64_t>(place)), 27) * prime[0] + prime[3];
  }
  if (left >= 4) {
    hash = std::rotl(hash ^ (read_word<std::uint32_t>(place) * prime[0]), 23) * prime[1] + prime[2];
    left -= 4;
    place += 4;
  }
  for (; left > 0; --left, ++place) {
    hash = std::rotl(hash ^ (static_cast<unsigned char>(*place) * prime[4]), 11) * prime[0];
  }
  hash = (hash ^ (hash >> 33)) * prime[1];
  hash = (hash ^ (hash >> 29)) * prime[2];
  return hash ^ (hash >> 32);
}

/// The hash of one tensor: of its bytes, seeded by the hash of "<name> <type> <element count>".
template <storage_scalar T>
std::uint64_t tensor_hash(std::string_view name, vector_view<T const> values) {
  return xxh64(bytes_of(values),
               xxh64(detail::join(name, " ", traits_of(dtype_of<T>).name, " ", values.size)));
}

/// What the weights of a model were at one moment, in eight bytes a tensor.
///
/// value() is the sum of the tensors' hashes modulo 2^64: independent of their order, and where
/// some tensors change, it moves by the difference of their hashes. An integrity check, not a
/// signature.
class model_hash {
 public:
  struct tensor {
    std::string name;
    std::uint64_t hash = 0;
  };

  /// Hashes every weight of `parameters`, which are the whole model. Throws config_error if a name
  /// is empty or used twice.
  template <storage_scalar T>
  explicit model_hash(std::vector<parameter_view<T>> const& parameters) {
    for (parameter_view<T> const& parameter : parameters) {
      tensors_.push_back(
          {std::string(parameter.name), tensor_hash<T>(parameter.name, parameter.weight)});
      value_ += tensors_.back().hash;
    }
    detail::sort_by_name(tensors_);
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (tensors_[i].name.empty() || (i > 0 && tensors_[i].name == tensors_[i - 1].name)) {
        throw_config_error("model_hash: the name \"", tensors_[i].name,
                           "\" is empty or used twice, expected unique names");
      }
    }
  }

  std::uint64_t value() const noexcept { return value_; }
  /// Sorted by name.
  std::vector<tensor> const& tensors() const noexcept { return tensors_; }
  /// The tensor of that name, or null.
  tensor const* find(std::string_view name) const noexcept {
    return detail::find_by_name(tensors_, name);
  }

 private:
  std::vector<tensor> tensors_;
  std::uint64_t value_ = 0;
};

LAMINA_NAMESPACE_END
