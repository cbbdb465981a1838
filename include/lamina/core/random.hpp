// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Counter-based random numbers: a pure function of a key and a counter, so that a draw depends on
// what it is for (seed, step, row, position, ...) and never on what was drawn before it.
#pragma once

#include <cstdint>
#include <cstring>

#include "lamina/config.hpp"

LAMINA_NAMESPACE_BEGIN

/// Four 32-bit words: a Philox counter or its output.
struct random_words {
  std::uint32_t word[4];
};

/// Philox4x32-10: 128 random bits for a 64-bit key and a 128-bit counter.
/// Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3",
/// section 3.3 and table 2.
LAMINA_HOST_DEVICE constexpr random_words philox4x32(std::uint64_t key,
                                                     random_words counter) noexcept {
  std::uint32_t key_low = static_cast<std::uint32_t>(key);
  std::uint32_t key_high = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    std::uint64_t const product_0 = std::uint64_t{0xD2511F53u} * counter.word[0];
    std::uint64_t const product_1 = std::uint64_t{0xCD9E8D57u} * counter.word[2];
    counter = {{static_cast<std::uint32_t>(product_1 >> 32) ^ counter.word[1] ^ key_low,
                static_cast<std::uint32_t>(product_1),
                static_cast<std::uint32_t>(product_0 >> 32) ^ counter.word[3] ^ key_high,
                static_cast<std::uint32_t>(product_0)}};
    key_low += 0x9E3779B9u;
    key_high += 0xBB67AE85u;
  }
  return counter;
}

/// Counters that philox4x32_leading works together.
inline constexpr int philox_lanes = 8;

namespace detail {

#if defined(__GNUC__) && !defined(__CUDACC__)
#if defined(__AVX2__)
inline constexpr int word_pack_lanes = 4;
#else
inline constexpr int word_pack_lanes = 2;
#endif
typedef std::uint64_t word_pack __attribute__((vector_size(8 * word_pack_lanes)));

// Lane by lane, the 64-bit product of the low halves.
LAMINA_INLINE word_pack product_of_low(word_pack a, std::uint32_t factor) {
#if defined(__AVX2__) && !defined(__clang__)  // g++ does not see that one instruction does this
  typedef std::int32_t halves __attribute__((vector_size(32)));
  return (word_pack)__builtin_ia32_pmuludq256((halves)a, (halves)(word_pack{} + factor));
#else
  return (a & 0xffffffffu) * (word_pack{} + factor);
#endif
}
#else
inline constexpr int word_pack_lanes = 1;
using word_pack = std::uint64_t;
LAMINA_INLINE word_pack product_of_low(word_pack a, std::uint32_t factor) {
  return (a & 0xffffffffu) * factor;
}
#endif

}  // namespace detail

/// words[j] = philox4x32(key, counter).word[0] with j added to the counter's last word: 32 bits
/// each for loops over that word. A lane holds a word in its low half and leftovers, which products
/// ignore, in its high half; so a round needs no shuffles.
inline void philox4x32_leading(std::uint64_t key, random_words counter,
                               std::uint32_t (&words)[philox_lanes]) noexcept {
  using detail::word_pack;
  constexpr int packs = philox_lanes / detail::word_pack_lanes;
  constexpr std::uint64_t offsets[philox_lanes] = {0, 1, 2, 3, 4, 5, 6, 7};
  word_pack a[packs], b[packs], c[packs], d[packs];
  std::memcpy(d, offsets, sizeof d);
  for (int p = 0; p < packs; ++p) {
    a[p] = word_pack{} + counter.word[0];
    b[p] = word_pack{} + counter.word[1];
    c[p] = word_pack{} + counter.word[2];
    d[p] += counter.word[3];
  }
  word_pack key_low = word_pack{} + (key & 0xffffffffu), key_high = word_pack{} + (key >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int p = 0; p < packs; ++p) {
      word_pack const product_0 = detail::product_of_low(a[p], 0xD2511F53u);
      word_pack const product_1 = detail::product_of_low(c[p], 0xCD9E8D57u);
      a[p] = (product_1 >> 32) ^ b[p] ^ key_low;
      b[p] = product_1;
      c[p] = (product_0 >> 32) ^ d[p] ^ key_high;
      d[p] = product_0;
    }
    key_low += 0x9E3779B9u;
    key_high += 0xBB67AE85u;
  }
  std::uint64_t lanes[philox_lanes];
  std::memcpy(lanes, a, sizeof lanes);
  for (int j = 0; j < philox_lanes; ++j) words[j] = static_cast<std::uint32_t>(lanes[j]);
}

/// A double strictly inside (0, 1) from 52 of 64 random bits; its logarithm is finite.
LAMINA_HOST_DEVICE constexpr double uniform_open(std::uint32_t high, std::uint32_t low) noexcept {
  std::uint64_t const bits = (std::uint64_t{high} << 20) | (low >> 12);
  return (static_cast<double>(bits) + 0.5) * 0x1p-52;
}

/// A sequence of draws from one Philox stream: a uniform random bit generator for code that wants
/// one after another. Two streams of one seed are independent.
class counter_generator {
 public:
  using result_type = std::uint32_t;

  constexpr explicit counter_generator(std::uint64_t seed, std::uint64_t stream = 0) noexcept
      : seed_(seed), stream_(stream) {}

  static constexpr result_type min() noexcept { return 0; }
  static constexpr result_type max() noexcept { return 0xffffffffu; }

  constexpr result_type operator()() noexcept {
    if (used_ == 4) {
      block_ = philox4x32(
          seed_,
          {{static_cast<std::uint32_t>(position_), static_cast<std::uint32_t>(position_ >> 32),
            static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)}});
      ++position_;
      used_ = 0;
    }
    return block_.word[used_++];
  }

  /// Uniform in (0, 1).
  constexpr double uniform() noexcept {
    std::uint32_t const high = (*this)();
    return uniform_open(high, (*this)());
  }

  /// Uniform in [0, bound), without modulo bias; 0 for bound <= 1.
  /// Source: Lemire 2019, "Fast random integer generation in an interval", algorithm 5.
  constexpr std::uint32_t below(std::uint32_t bound) noexcept {
    if (bound <= 1) return 0;
    std::uint32_t const threshold = (0u - bound) % bound;
    for (;;) {
      std::uint64_t const product = std::uint64_t{(*this)()} * bound;
      if (static_cast<std::uint32_t>(product) >= threshold) {
        return static_cast<std::uint32_t>(product >> 32);
      }
    }
  }

 private:
  std::uint64_t seed_;
  std::uint64_t stream_;
  std::uint64_t position_ = 0;
  random_words block_{};
  int used_ = 4;
};

LAMINA_NAMESPACE_END
