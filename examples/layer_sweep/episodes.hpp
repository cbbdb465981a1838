// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Episodes of a batch of prompts as the decoder's sampler and its training see them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "examples/layer_sweep/task.hpp"

namespace layer_sweep {

/// A sampling session: `copies` episodes of every prompt, row = prompt x copies + copy. An episode
/// that is as long as the task allows is cut off.
template <verifiable_task Task>
class episodes {
 public:
  episodes(Task const& task, std::span<typename Task::prompt const> prompts, index_t copies)
      : response_length_(task.response_length) {
    for (auto const& prompt : prompts) {
      encoded_.push_back(task.encode(prompt));
      for (index_t copy = 0; copy < copies; ++copy) rows_.push_back({task.start(prompt), 0});
    }
  }

  std::vector<std::vector<token_id>> const& encoded() const { return encoded_; }

  /// Tokens of the longest prompt and response together: what the sampler must have room for.
  index_t max_length() const {
    std::size_t longest = 0;
    for (auto const& prompt : encoded_) longest = (std::max)(longest, prompt.size());
    return static_cast<index_t>(longest) + response_length_;
  }

  /// Told every drawn token by the sampler; returns whether the episode goes on.
  bool advance(index_t row, token_id drawn, std::vector<token_id>& forced) {
    auto& [episode, length] = rows_[static_cast<std::size_t>(row)];
    auto const observations = episode.accept(drawn);
    forced.insert(forced.end(), observations.begin(), observations.end());
    length += 1 + static_cast<index_t>(observations.size());
    return !episode.done() && length < response_length_;
  }

  /// [rows]; an episode that was cut off is worth nothing.
  std::vector<float> rewards() const {
    std::vector<float> rewards;
    for (auto const& [episode, length] : rows_) {
      rewards.push_back(episode.done() ? static_cast<float>(episode.reward()) : 0.0f);
    }
    return rewards;
  }

  /// Episodes that were cut off.
  index_t truncated_count() const {
    return std::count_if(rows_.begin(), rows_.end(),
                         [](progress const& r) { return !r.episode.done(); });
  }

  /// Tokens of all responses, observations and what ends a response included.
  index_t response_token_count() const {
    index_t total = 0;
    for (progress const& r : rows_) total += r.length;
    return total;
  }

 private:
  struct progress {
    decltype(std::declval<Task const&>().start(
        std::declval<typename Task::prompt const&>())) episode;
    index_t length = 0;
  };

  index_t response_length_;
  std::vector<std::vector<token_id>> encoded_;
  std::vector<progress> rows_;
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
