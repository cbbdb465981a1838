// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Which rollouts belong together.
#pragma once

#include <vector>

#include "lamina/core/error.hpp"
#include "lamina/core/view.hpp"
#include "lamina/policy/detail/first_equal.hpp"
#include "lamina/policy/offsets.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {
inline void check_uniform(char const* function, index_t rollouts, index_t group_size) {
  if (group_size < 1 || rollouts < 0 || rollouts % group_size != 0) {
    throw_shape_error(function, ": group_size is ", group_size, ", rollouts is ", rollouts,
                      "; expected a group_size >= 1 that divides rollouts");
  }
}
struct group_arrays;
}  // namespace detail

/// Some rollouts: consecutive ones from `first` on, or those that `order` lists from there on.
struct group_members {
  index_t first = 0;
  index_t size = 0;
  index_t const* order = nullptr;

  LAMINA_HOST_DEVICE index_t operator[](index_t k) const noexcept {
    return order != nullptr ? order[first + k] : first + k;
  }
};

/// Groups as row bodies read them, in the memory that bodies work in. Never owns. What it views has
/// been checked: only uniform, prompt_groups and device_prompt_groups make one.
class group_view {
 public:
  /// No groups of no rollouts.
  constexpr group_view() = default;
  /// Consecutive groups of `group_size`, for which no memory is read. Throws shape_error unless
  /// group_size divides rollouts.
  static group_view uniform(index_t rollouts, index_t group_size) {
    detail::check_uniform("group_view::uniform", rollouts, group_size);
    group_view view;
    view.rollout_count_ = rollouts;
    view.group_count_ = rollouts / group_size;
    view.group_size_ = group_size;
    return view;
  }

  LAMINA_HOST_DEVICE index_t rollout_count() const noexcept { return rollout_count_; }
  LAMINA_HOST_DEVICE index_t group_count() const noexcept { return group_count_; }
  /// The rollouts of group g, ascending.
  LAMINA_HOST_DEVICE group_members rollouts(index_t g) const noexcept {
    if (offsets_ == nullptr) return {g * group_size_, group_size_, nullptr};
    return {offsets_[g], offsets_[g + 1] - offsets_[g], order_};
  }

 private:
  friend class prompt_groups;
  friend struct detail::group_arrays;

  index_t rollout_count_ = 0, group_count_ = 0, group_size_ = 0;
  index_t const* offsets_ = nullptr;  // [groups + 1] into order_; null where group_size_ says it
  index_t const* order_ = nullptr;    // [rollouts], group after group
};

/// Which rollouts answer the same prompt: every rollout belongs to exactly one group.
class prompt_groups {
 public:
  /// No groups of no rollouts.
  prompt_groups() = default;

  /// Consecutive groups of `group_size`. Throws shape_error unless group_size divides rollouts.
  static prompt_groups uniform(index_t rollouts, index_t group_size) {
    detail::check_uniform("prompt_groups::uniform", rollouts, group_size);
    prompt_groups groups;
    for (index_t i = 0; i < rollouts; ++i) groups.order_.push_back(i);
    for (index_t i = group_size; i <= rollouts; i += group_size) groups.offsets_.push_back(i);
    return groups;
  }

  /// Group g holds rollouts offsets[g] .. offsets[g + 1). Throws shape_error unless offsets starts
  /// at 0 and never falls.
  static prompt_groups ragged(vector_view<index_t const> offsets) {
    detail::check_offsets("prompt_groups::ragged", "offsets", offsets, "groups");
    prompt_groups groups;
    for (index_t g = 1; g < offsets.size; ++g) groups.offsets_.push_back(offsets[g]);
    for (index_t i = 0; i < offsets[offsets.size - 1]; ++i) groups.order_.push_back(i);
    return groups;
  }

  /// Rollouts with equal ids form a group, wherever they stand; ids may be any numbers.
  static prompt_groups by_id(vector_view<index_t const> ids) {
    std::vector<index_t> const all{0, ids.size};
    return ragged(all).split(ids);
  }

  /// Every group split into its rollouts with equal ids: never across groups, so that ids need to
  /// be unique only within a group. Parts come group after group, in order of their first rollout.
  /// Throws shape_error unless there is one id a rollout.
  prompt_groups split(vector_view<index_t const> ids) const {
    if (ids.size != rollout_count()) {
      throw_shape_error("prompt_groups::split: ids has ", ids.size, " entries, the groups hold ",
                        rollout_count(), " rollouts; expected one id a rollout");
    }
    std::vector<index_t> group(order_.size());  // of each position in order_
    for (index_t g = 0; g < group_count(); ++g) {
      for (index_t p = offsets_[at(g)]; p < offsets_[at(g) + 1]; ++p) group[at(p)] = g;
    }
    std::vector<index_t> const first = detail::first_equal(
        rollout_count(),
        [&](index_t p) {
          return static_cast<std::uint64_t>(ids[order_[at(p)]]) * 31u +
                 static_cast<std::uint64_t>(group[at(p)]);
        },
        [&](index_t p, index_t q) {
          return ids[order_[at(p)]] == ids[order_[at(q)]] && group[at(p)] == group[at(q)];
        });
    prompt_groups parts;
    std::vector<index_t> part(order_.size());  // of each position, and the sizes of the parts
    for (std::size_t p = 0; p < order_.size(); ++p) {
      bool const opens = first[p] == static_cast<index_t>(p);
      part[p] = opens ? parts.group_count() : part[at(first[p])];
      if (opens) parts.offsets_.push_back(0);
      ++parts.offsets_[at(part[p]) + 1];
    }
    for (std::size_t g = 1; g < parts.offsets_.size(); ++g) {
      parts.offsets_[g] += parts.offsets_[g - 1];
    }
    parts.order_.resize(order_.size());
    std::vector<index_t> next(parts.offsets_);
    for (std::size_t p = 0; p < order_.size(); ++p) {
      parts.order_[at(next[at(part[p])]++)] = order_[p];
    }
    return parts;
  }

  index_t group_count() const noexcept { return static_cast<index_t>(offsets_.size()) - 1; }
  index_t rollout_count() const noexcept { return static_cast<index_t>(order_.size()); }
  /// The rollouts of group g, ascending.
  vector_view<index_t const> rollouts(index_t g) const noexcept {
    index_t const begin = offsets_[at(g)], end = offsets_[at(g) + 1];
    return {order_.data() + begin, end - begin};
  }
  /// For row bodies on the host; good as long as the groups stay.
  group_view view() const noexcept {
    group_view view;
    view.rollout_count_ = rollout_count();
    view.group_count_ = group_count();
    view.offsets_ = offsets_.data();
    view.order_ = order_.data();
    return view;
  }

 private:
  friend struct detail::group_arrays;
  static constexpr std::size_t at(index_t i) noexcept { return static_cast<std::size_t>(i); }

  std::vector<index_t> order_;          // rollouts, group after group
  std::vector<index_t> offsets_ = {0};  // [groups + 1] into order_
};

namespace detail {

// For copies of groups in other memory.
struct group_arrays {
  static vector_view<index_t const> order(prompt_groups const& groups) { return groups.order_; }
  static vector_view<index_t const> offsets(prompt_groups const& groups) { return groups.offsets_; }
  static vector_view<index_t const> order(group_view view) {
    return {view.order_, view.order_ != nullptr ? view.rollout_count_ : index_t(0)};
  }
  static vector_view<index_t const> offsets(group_view view) {
    return {view.offsets_, view.offsets_ != nullptr ? view.group_count_ + 1 : index_t(0)};
  }
  static group_view of_copy(group_view view, index_t const* offsets, index_t const* order) {
    view.offsets_ = offsets;
    view.order_ = order;
    return view;
  }
};

}  // namespace detail

LAMINA_NAMESPACE_END
