// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A set of decoder layers: 512 bits, set algebra, usable in constant expressions.
#pragma once

#include <cstdint>

#include "lamina/core/error.hpp"

LAMINA_NAMESPACE_BEGIN

/// The deepest model a layer_set can address.
inline constexpr index_t max_layers = 512;

/// Zero-based decoder layers. A value: compare, combine and iterate it; it knows no model, so
/// whether its layers exist is checked where the layer count is known (plan_backward).
class layer_set {
 public:
  constexpr layer_set() = default;

  /// Adds a layer. Throws selection_error outside [0, max_layers).
  constexpr layer_set& insert(index_t layer) {
    check(layer);
    words_[layer / 64] |= std::uint64_t{1} << (layer % 64);
    return *this;
  }
  /// Removes a layer; nothing happens if it is not there.
  constexpr layer_set& erase(index_t layer) {
    check(layer);
    words_[layer / 64] &= ~(std::uint64_t{1} << (layer % 64));
    return *this;
  }

  /// Whether the layer is in the set; false for any index outside [0, max_layers).
  constexpr bool contains(index_t layer) const noexcept {
    if (layer < 0 || layer >= max_layers) return false;
    return ((words_[layer / 64] >> (layer % 64)) & 1u) != 0;
  }
  constexpr index_t size() const noexcept {
    index_t count = 0;
    for (std::uint64_t word : words_) {
      for (; word != 0; word &= word - 1) ++count;
    }
    return count;
  }
  constexpr bool empty() const noexcept { return lowest() < 0; }

  /// The lowest layer, or -1 of an empty set.
  constexpr index_t lowest() const noexcept { return next(0); }
  /// The highest layer, or -1 of an empty set.
  constexpr index_t highest() const noexcept {
    for (index_t layer = max_layers - 1; layer >= 0; --layer) {
      if (contains(layer)) return layer;
    }
    return -1;
  }
  /// The first layer >= `from` in the set, or -1.
  constexpr index_t next(index_t from) const noexcept {
    for (index_t layer = from < 0 ? 0 : from; layer < max_layers; ++layer) {
      if (words_[layer / 64] >> (layer % 64) == 0) {
        layer = (layer / 64) * 64 + 63;
      } else if (contains(layer)) {
        return layer;
      }
    }
    return -1;
  }

  /// Visits the layers in ascending order, so that `for (index_t layer : set)` works.
  class iterator {
   public:
    using value_type = index_t;
    using difference_type = index_t;
    constexpr iterator() = default;
    constexpr iterator(layer_set const* set, index_t layer) noexcept : set_(set), layer_(layer) {}
    constexpr index_t operator*() const noexcept { return layer_; }
    constexpr iterator& operator++() noexcept {
      layer_ = set_->next(layer_ + 1);
      return *this;
    }
    constexpr iterator operator++(int) noexcept {
      iterator const before = *this;
      ++*this;
      return before;
    }
    friend constexpr bool operator==(iterator a, iterator b) noexcept {
      return a.layer_ == b.layer_;
    }

   private:
    layer_set const* set_ = nullptr;
    index_t layer_ = -1;
  };
  constexpr iterator begin() const noexcept { return {this, lowest()}; }
  constexpr iterator end() const noexcept { return {this, -1}; }

  friend constexpr layer_set operator|(layer_set a, layer_set const& b) noexcept {
    for (int w = 0; w < word_count; ++w) a.words_[w] |= b.words_[w];
    return a;
  }
  friend constexpr layer_set operator&(layer_set a, layer_set const& b) noexcept {
    for (int w = 0; w < word_count; ++w) a.words_[w] &= b.words_[w];
    return a;
  }
  /// Layers of a that are not in b.
  friend constexpr layer_set operator-(layer_set a, layer_set const& b) noexcept {
    for (int w = 0; w < word_count; ++w) a.words_[w] &= ~b.words_[w];
    return a;
  }
  /// Layers in exactly one of the two.
  friend constexpr layer_set operator^(layer_set a, layer_set const& b) noexcept {
    for (int w = 0; w < word_count; ++w) a.words_[w] ^= b.words_[w];
    return a;
  }
  friend constexpr bool operator==(layer_set const&, layer_set const&) noexcept = default;

 private:
  static constexpr int word_count = static_cast<int>(max_layers / 64);

  static constexpr void check(index_t layer) {
    if (layer < 0 || layer >= max_layers) {
      throw_selection_error("layer_set: layer ", layer, " is outside 0..", max_layers - 1);
    }
  }

  std::uint64_t words_[word_count] = {};
};

LAMINA_NAMESPACE_END
