// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Byte-pair encoding of one word: of all neighbours that have a merge, the pair with the lowest
// rank, and of these the leftmost, becomes one symbol, until no pair is left.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace decoder {

/// Merges of token pairs by rank. A word of n symbols takes O(n log n).
class byte_pair_merges {
 public:
  /// The next merge in rank. A pair that was there before takes the new rank.
  void add(std::int32_t left, std::int32_t right, std::int32_t merged) {
    merges_[key(left, right)] = {static_cast<std::uint32_t>(next_rank_++), merged};
  }

  void reserve(std::size_t count) { merges_.reserve(count); }

  /// Memory that calls of encode share.
  struct scratch {
    struct symbol {
      std::int32_t token, previous, next;
    };
    struct candidate {
      std::uint64_t order;  // rank, then position
      std::int32_t merged;
      // The heap of the standard library has the largest on top.
      bool operator<(candidate const& other) const { return order > other.order; }
    };
    std::vector<symbol> symbols;
    std::vector<candidate> heap;
  };

  /// Appends the tokens of a word, which is given as symbols, fewer than 2^31.
  void encode(std::span<std::int32_t const> word, scratch& memory,
              std::vector<std::int32_t>& tokens) const {
    auto& symbols = memory.symbols;
    auto& heap = memory.heap;
    symbols.clear();
    heap.clear();
    auto const count = static_cast<std::int32_t>(word.size());
    for (std::int32_t i = 0; i < count; ++i) {
      symbols.push_back({word[static_cast<std::size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1});
    }
    auto const at = [&symbols](std::int32_t i) -> scratch::symbol& {
      return symbols[static_cast<std::size_t>(i)];
    };
    auto const consider = [&](std::int32_t position) {
      if (position < 0 || at(position).next < 0) return;
      auto const found = merges_.find(key(at(position).token, at(at(position).next).token));
      if (found == merges_.end()) return;
      std::uint64_t const rank = found->second.rank;
      heap.push_back({rank << 32 | static_cast<std::uint32_t>(position), found->second.merged});
    };
    for (std::int32_t i = 0; i + 1 < count; ++i) consider(i);
    std::make_heap(heap.begin(), heap.end());

    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end());
      scratch::candidate const best = heap.back();
      heap.pop_back();
      auto const position = static_cast<std::int32_t>(best.order & 0xFFFFFFFFU);
      auto& left = at(position);
      // What was merged since then is not this pair any more.
      if (left.token == dead || left.next < 0) continue;
      auto& right = at(left.next);
      auto const found = merges_.find(key(left.token, right.token));
      if (found == merges_.end() || found->second.merged != best.merged) continue;
      left.token = best.merged;
      right.token = dead;
      left.next = right.next;
      if (left.next >= 0) at(left.next).previous = position;
      for (std::int32_t const changed : {left.previous, position}) {
        std::size_t const before = heap.size();
        consider(changed);
        if (heap.size() != before) std::push_heap(heap.begin(), heap.end());
      }
    }
    for (std::int32_t i = count > 0 ? 0 : -1; i >= 0; i = at(i).next) tokens.push_back(at(i).token);
  }

 private:
  static constexpr std::int32_t dead = -1;

  struct merge {
    std::uint32_t rank;
    std::int32_t merged;
  };
  // Distinct pairs have distinct keys; the multiplication spreads them over the buckets.
  static std::uint64_t key(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
           static_cast<std::uint32_t>(right);
  }
  struct spread {
    std::size_t operator()(std::uint64_t key) const noexcept {
      return static_cast<std::size_t>((key ^ key >> 29) * 0x9E3779B97F4A7C15U);
    }
  };

  std::unordered_map<std::uint64_t, merge, spread> merges_;
  std::size_t next_rank_ = 0;
};

}  // namespace decoder
