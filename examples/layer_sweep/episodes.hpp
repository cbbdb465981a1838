// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Episodes of a batch of prompts as the decoder's sampler and its training see them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "examples/layer_sweep/task.hpp"

namespace layer_sweep {

/// A sampling session: `copies` episodes of every prompt, row = prompt x copies + copy.
template <verifiable_task Task>
class episodes {
 public:
  episodes(std::span<typename Task::prompt const> prompts, index_t copies) {
    for (auto const& prompt : prompts) {
      encoded_.push_back(Task::encode(prompt));
      for (index_t copy = 0; copy < copies; ++copy) rows_.emplace_back(prompt);
    }
  }

  std::vector<std::vector<token_id>> const& encoded() const { return encoded_; }

  /// Told every drawn token by the sampler; returns whether the episode goes on.
  bool advance(index_t row, token_id drawn, std::vector<token_id>& forced) {
    auto& episode = rows_[static_cast<std::size_t>(row)];
    auto const observations = episode.accept(drawn);
    forced.insert(forced.end(), observations.begin(), observations.end());
    return !episode.done();
  }

  /// [rows]; an episode that was cut off is worth nothing.
  std::vector<float> rewards() const {
    std::vector<float> rewards;
    for (auto const& episode : rows_) {
      rewards.push_back(episode.done() ? static_cast<float>(episode.reward()) : 0.0f);
    }
    return rewards;
  }

 private:
  std::vector<std::vector<token_id>> encoded_;
  std::vector<typename Task::episode> rows_;
};

/// Demonstrations packed one after another.
struct demonstration_batch {
  std::vector<token_id> tokens;
  std::vector<index_t> offsets{0};
  std::vector<std::uint8_t> targets;

  void append(demonstration const& shown) {
    tokens.insert(tokens.end(), shown.tokens.begin(), shown.tokens.end());
    targets.insert(targets.end(), shown.targets.begin(), shown.targets.end());
    offsets.push_back(static_cast<index_t>(tokens.size()));
  }
};

}  // namespace layer_sweep
