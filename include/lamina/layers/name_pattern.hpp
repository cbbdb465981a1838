// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Regular expressions over tensor names, matched in linear time by following every alternative at
// once: no back-tracking, no recursion over the name, whatever the pattern.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lamina/layers/detail/pattern_compiler.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// The places in a program where a match may stand at once, each at most once.
class pattern_threads {
 public:
  explicit pattern_threads(pattern_program const& program)
      : program_(&program), seen_(program.steps.size() + 1) {}

  void clear() noexcept {
    waiting_.clear();
    ++generation_;
  }
  std::vector<std::size_t> const& waiting() const noexcept { return waiting_; }

  // Follows splits, jumps and anchors from `step` to the steps that read a byte; true if the end
  // of the program is among what is reached.
  bool add(std::size_t start, bool at_begin, bool at_end) {
    using kind = pattern_step::kind;
    bool matched = false;
    open_.push_back(start);
    while (!open_.empty()) {
      std::size_t const at = open_.back();
      open_.pop_back();
      if (seen_[at] == generation_) continue;
      seen_[at] = generation_;
      if (at == program_->steps.size()) {
        matched = true;
        continue;
      }
      pattern_step const& step = program_->steps[at];
      auto const target = static_cast<std::size_t>(static_cast<std::ptrdiff_t>(at) + step.target);
      switch (step.what) {
        case kind::byte:
        case kind::set: waiting_.push_back(at); break;
        case kind::jump: open_.push_back(target); break;
        case kind::split:
          open_.push_back(target);
          open_.push_back(at + 1);
          break;
        case kind::name_begin:
          if (at_begin) open_.push_back(at + 1);
          break;
        case kind::name_end:
          if (at_end) open_.push_back(at + 1);
          break;
      }
    }
    return matched;
  }

 private:
  pattern_program const* program_;
  std::vector<std::size_t> seen_, waiting_, open_;
  std::size_t generation_ = 1;
};

}  // namespace detail

/// A regular expression over tensor names. A value; equal if the texts are.
///
/// literals, `.` (any character), classes `[a-z_]` `[^.]`, `\d \D \w \W`, `\` before a sign,
/// groups `( )`, `|`, `* + ? {m} {m,} {m,n}`, and the anchors `^` and `$` of the whole name.
/// Anything else is refused: back-references, look-around, lazy repetition, other escapes, empty
/// alternatives.
///
/// The pattern is searched for: `q_proj` matches every name that holds it, `^lm_head` only names
/// that begin so. Matching takes time proportional to name length times pattern length.
class name_pattern {
 public:
  /// Throws selection_error with the offset for what is not such a pattern, for one longer than
  /// 1024 characters, or one that its repetitions make larger than 4096 steps.
  explicit name_pattern(std::string_view pattern)
      : name_pattern(detail::selection_source{"name_pattern"}, pattern) {}
  name_pattern(detail::selection_source source, std::string_view pattern)
      : text_(pattern), program_(detail::pattern_compiler(source, pattern).compile()) {}

  std::string const& text() const noexcept { return text_; }

  /// Whether the pattern occurs in `name`.
  bool matches(std::string_view name) const {
    using kind = detail::pattern_step::kind;
    detail::pattern_threads now(program_), next(program_);
    for (std::size_t position = 0;; ++position) {
      bool const at_end = position == name.size();
      if (now.add(0, position == 0, at_end)) return true;
      if (at_end) return false;
      auto const byte = static_cast<unsigned char>(name[position]);
      next.clear();
      for (std::size_t const at : now.waiting()) {
        detail::pattern_step const& step = program_.steps[at];
        bool const reads = step.what == kind::byte
                               ? step.byte == byte
                               : program_.sets[static_cast<std::size_t>(step.set)].contains(byte);
        if (reads && next.add(at + 1, false, position + 1 == name.size())) return true;
      }
      std::swap(now, next);
    }
  }

  friend bool operator==(name_pattern const& a, name_pattern const& b) noexcept {
    return a.text_ == b.text_;
  }

 private:
  std::string text_;
  detail::pattern_program program_;
};

LAMINA_NAMESPACE_END
