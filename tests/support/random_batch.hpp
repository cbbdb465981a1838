// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Random ragged batches that own their arrays, for property tests of policy losses.
#pragma once

#include <limits>
#include <vector>

#include "lamina/core/random.hpp"
#include "lamina/policy/policy_batch.hpp"
#include "tests/support/reference.hpp"

namespace lamina::testing {

/// Owns what a policy_batch<T> views.
template <class T>
struct owned_batch {
  std::vector<index_t> offsets{0};
  std::vector<std::int32_t> token_ids;
  std::vector<T> log_probs, old_log_probs, reference_log_probs, advantages;
  std::vector<std::uint8_t> mask;
  loss_denominators denominators;

  void push_sequence(owned_batch const& other, index_t i) {
    for (index_t t = other.offsets[at(i)]; t < other.offsets[at(i + 1)]; ++t) {
      token_ids.push_back(other.token_ids[at(t)]);
      log_probs.push_back(other.log_probs[at(t)]);
      old_log_probs.push_back(other.old_log_probs[at(t)]);
      reference_log_probs.push_back(other.reference_log_probs[at(t)]);
      mask.push_back(other.mask[at(t)]);
    }
    advantages.push_back(other.advantages[at(i)]);
    offsets.push_back(static_cast<index_t>(token_ids.size()));
  }

  policy_batch<T> view() const {
    policy_batch<T> batch;
    batch.offsets = offsets;
    batch.token_ids = token_ids;
    batch.old_log_probs = old_log_probs;
    batch.reference_log_probs = reference_log_probs;
    batch.mask = mask;
    batch.advantages = advantages;
    batch.denominators = denominators;
    return batch;
  }
  index_t tokens() const { return offsets.back(); }

  static std::size_t at(index_t i) { return static_cast<std::size_t>(i); }
};

/// Sequences of 0 to 6 tokens with gaps in the mask; ratios between about 0.5 and 2.
template <class T>
owned_batch<T> random_batch(std::uint64_t seed, index_t sequences, index_t vocab = 13) {
  counter_generator random(seed);
  owned_batch<T> batch;
  auto const around = [&](double centre, double width) {
    return static_cast<T>(centre + width * (2 * random.uniform() - 1));
  };
  for (index_t i = 0; i < sequences; ++i) {
    index_t const length = random.below(7);
    for (index_t t = 0; t < length; ++t) {
      batch.token_ids.push_back(
          static_cast<std::int32_t>(random.below(static_cast<std::uint32_t>(vocab))));
      T const old = around(-1.5, 1.0);
      batch.old_log_probs.push_back(old);
      batch.log_probs.push_back(around(static_cast<double>(old), 0.7));
      batch.reference_log_probs.push_back(around(static_cast<double>(old), 1.0));
      batch.mask.push_back(random.below(5) != 0);
    }
    batch.advantages.push_back(random.below(6) == 0 ? T(0) : around(0, 2));
    batch.offsets.push_back(static_cast<index_t>(batch.token_ids.size()));
  }
  batch.denominators = denominators_of(batch.view());
  return batch;
}

/// The same batch as nested vectors, for the reference loss.
template <class T>
reference_batch as_reference(owned_batch<T> const& batch) {
  reference_batch nested;
  for (std::size_t i = 0; i + 1 < batch.offsets.size(); ++i) {
    auto const slice = [&](auto const& values) {
      return std::vector<double>(values.begin() + batch.offsets[i],
                                 values.begin() + batch.offsets[i + 1]);
    };
    nested.log_probs.push_back(slice(batch.log_probs));
    nested.old_log_probs.push_back(slice(batch.old_log_probs));
    nested.reference_log_probs.push_back(slice(batch.reference_log_probs));
    nested.mask.push_back(std::vector<int>(batch.mask.begin() + batch.offsets[i],
                                           batch.mask.begin() + batch.offsets[i + 1]));
    nested.advantages.push_back(static_cast<double>(batch.advantages[i]));
  }
  return nested;
}

}  // namespace lamina::testing
