// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// From the text of a name_pattern to the program of its automaton.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "lamina/layers/selector.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// A set of bytes.
struct byte_set {
  std::uint64_t words[4] = {};

  constexpr void insert(unsigned char c) noexcept { words[c / 64] |= std::uint64_t{1} << (c % 64); }
  constexpr bool contains(unsigned char c) const noexcept {
    return ((words[c / 64] >> (c % 64)) & 1u) != 0;
  }
  constexpr void insert_range(unsigned char first, unsigned char last) noexcept {
    for (unsigned c = first; c <= last; ++c) insert(static_cast<unsigned char>(c));
  }
  constexpr void merge(byte_set const& other) noexcept {
    for (int w = 0; w < 4; ++w) words[w] |= other.words[w];
  }
  constexpr byte_set inverted() const noexcept {
    byte_set result;
    for (int w = 0; w < 4; ++w) result.words[w] = ~words[w];
    return result;
  }
};

// One step of a pattern's automaton. Targets are relative, so that a piece of program can be moved
// and copied as it is.
struct pattern_step {
  enum class kind : std::uint8_t { byte, set, split, jump, name_begin, name_end };
  kind what = kind::byte;
  unsigned char byte = 0;
  std::int32_t set = 0;     // index of a byte_set
  std::int32_t target = 0;  // of a jump; of a split, whose other target is the next step
};

struct pattern_program {
  std::vector<pattern_step> steps;
  std::vector<byte_set> sets;
};

// Text to program, by recursive descent. Every piece of a pattern emits at least one step, so the
// limit on steps also limits the work of nested repetitions.
class pattern_compiler {
 public:
  static constexpr std::size_t max_steps = 4096;
  static constexpr std::size_t max_length = 1024;
  static constexpr index_t max_repetitions = 255;
  static constexpr int max_depth = 32;

  pattern_compiler(selection_source source, std::string_view pattern)
      : source_(source), pattern_(pattern) {}

  pattern_program compile() {
    if (pattern_.empty()) source_.fail("the pattern is empty");
    if (pattern_.size() > max_length) {
      source_.fail("the pattern has ", pattern_.size(), " characters, expected at most ",
                   max_length);
    }
    alternatives(0);
    if (!at_end()) fail("\")\" closes no group");
    return std::move(program_);
  }

 private:
  using kind = pattern_step::kind;

  bool at_end() const noexcept { return position_ == pattern_.size(); }
  char peek() const noexcept { return at_end() ? '\0' : pattern_[position_]; }
  bool accept(char c) noexcept {
    if (at_end() || pattern_[position_] != c) return false;
    ++position_;
    return true;
  }
  template <class... Parts>
  [[noreturn]] void fail(Parts const&... parts) const {
    source_.fail("at offset ", position_, " of the pattern \"", pattern_, "\": ", parts...);
  }

  std::size_t size() const noexcept { return program_.steps.size(); }
  void check_room(std::size_t added) const {
    if (size() + added > max_steps) {
      fail("the pattern needs more than ", max_steps, " steps; repeat less");
    }
  }
  void emit(pattern_step step) {
    check_room(1);
    program_.steps.push_back(step);
  }
  void emit_set(byte_set const& set) {
    emit({.what = kind::set, .set = static_cast<std::int32_t>(program_.sets.size())});
    program_.sets.push_back(set);
  }
  void insert(std::size_t at, pattern_step step) {
    check_room(1);
    program_.steps.insert(program_.steps.begin() + static_cast<std::ptrdiff_t>(at), step);
  }
  static std::int32_t distance(std::size_t from, std::size_t to) noexcept {
    return static_cast<std::int32_t>(static_cast<std::ptrdiff_t>(to) -
                                     static_cast<std::ptrdiff_t>(from));
  }

  void alternatives(int depth) {
    std::size_t const first = size();
    sequence(depth);
    if (!accept('|')) return;
    insert(first, {.what = kind::split, .target = distance(first, size() + 2)});
    std::size_t const leave = size();
    emit({.what = kind::jump});
    alternatives(depth);  // as deep as there are alternatives, which max_length bounds
    program_.steps[leave].target = distance(leave, size());
  }

  void sequence(int depth) {
    if (at_end() || peek() == '|' || peek() == ')') {
      fail("expected something to match where nothing is");
    }
    while (!at_end() && peek() != '|' && peek() != ')') {
      std::size_t const first = size();
      bool const repeatable = atom(depth);
      repetition(first, repeatable);
    }
  }

  // Returns whether it may be repeated: an anchor may not.
  bool atom(int depth) {
    char const c = peek();
    switch (c) {
      case '(':
        ++position_;
        if (peek() == '?') fail("\"(?\" is not supported: no look-around and no named groups");
        if (depth == max_depth) fail("groups are nested more than ", max_depth, " deep");
        alternatives(depth + 1);
        if (!accept(')')) fail("expected \")\"");
        return true;
      case '[': bracket(); return true;
      case '.':
        ++position_;
        emit_set(byte_set{}.inverted());
        return true;
      case '^':
      case '$':
        ++position_;
        emit({.what = c == '^' ? kind::name_begin : kind::name_end});
        return false;
      case '*':
      case '+':
      case '?':
      case '{': fail("\"", std::string_view(&c, 1), "\" repeats nothing; a literal one needs a \\");
      case ']':
      case '}': fail("\"", std::string_view(&c, 1), "\" opens nowhere; a literal one needs a \\");
      case '\\': {
        byte_set set;
        if (escape(set)) {
          emit_set(set);
        } else {
          emit({.what = kind::byte, .byte = static_cast<unsigned char>(pattern_[position_ - 1])});
        }
        return true;
      }
      default:
        ++position_;
        emit({.what = kind::byte, .byte = static_cast<unsigned char>(c)});
        return true;
    }
  }

  // Reads an escape; true if it stands for a set, false if for the character just read.
  bool escape(byte_set& set) {
    ++position_;
    if (at_end()) fail("expected a character behind \"\\\"");
    char const c = peek();
    bool const letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    bool const digit = c >= '0' && c <= '9';
    if (c == 'd' || c == 'D' || c == 'w' || c == 'W') {
      ++position_;
      set.insert_range('0', '9');
      if (c == 'w' || c == 'W') {
        set.insert_range('a', 'z');
        set.insert_range('A', 'Z');
        set.insert('_');
      }
      if (c == 'D' || c == 'W') set = set.inverted();
      return true;
    }
    if (digit)
      fail("back-references such as \"\\", std::string_view(&c, 1), "\" are not supported");
    if (letter) {
      fail("\"\\", std::string_view(&c, 1),
           "\" is not supported, expected \\d, \\D, \\w, \\W or an escaped sign such as \\.");
    }
    ++position_;
    return false;
  }

  void bracket() {
    std::size_t const open = position_++;
    bool const inverted = accept('^');
    byte_set set;
    bool empty = true;
    while (!at_end() && peek() != ']') {
      if (peek() == '[') fail("\"[\" inside a class needs a \\");
      empty = false;
      unsigned char first = 0;
      if (!class_member(set, first)) continue;
      bool const is_range =
          peek() == '-' && position_ + 1 < pattern_.size() && pattern_[position_ + 1] != ']';
      if (!is_range) {
        set.insert(first);
        continue;
      }
      ++position_;
      unsigned char last = 0;
      byte_set ignored;
      if (peek() == '[') fail("\"[\" inside a class needs a \\");
      if (!class_member(ignored, last)) fail("a range ends in a set of characters");
      if (last < first) fail("the range of characters is reversed");
      set.insert_range(first, last);
    }
    if (!accept(']')) {
      position_ = open;
      fail("the class is not closed, expected \"]\"");
    }
    if (empty) fail("the class is empty");
    emit_set(inverted ? set.inverted() : set);
  }

  // One member of a class: a character (true), or a set merged into `set` (false).
  bool class_member(byte_set& set, unsigned char& character) {
    if (peek() == '\\') {
      byte_set escaped;
      if (escape(escaped)) {
        set.merge(escaped);
        return false;
      }
    } else {
      ++position_;
    }
    character = static_cast<unsigned char>(pattern_[position_ - 1]);
    return true;
  }

  index_t number() {
    index_t value = -1;
    for (; peek() >= '0' && peek() <= '9'; ++position_) {
      value = 10 * (value < 0 ? 0 : value) + (peek() - '0');
      if (value > max_repetitions) fail("expected at most ", max_repetitions, " repetitions");
    }
    return value;
  }

  // What follows the piece of program [first, size()): *, +, ?, {m}, {m,}, {m,n} or nothing.
  void repetition(std::size_t first, bool repeatable) {
    index_t least = 0, most = -1;  // -1: without end
    char const c = peek();
    if (c != '*' && c != '+' && c != '?' && c != '{') return;
    if (!repeatable) fail("an anchor cannot be repeated");
    ++position_;
    if (c == '+') least = 1;
    if (c == '?') most = 1;
    if (c == '{') {
      least = number();
      if (least < 0) fail("expected a number of repetitions");
      most = least;
      if (accept(',')) most = number();
      if (!accept('}')) fail("expected \"}\"");
      if (most >= 0 && (most < least || most == 0)) {
        fail("the most repetitions are ", most, ", expected at least ", least > 0 ? least : 1);
      }
    }
    if (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{') {
      fail("repetitions of repetitions, lazy and possessive ones are not supported");
    }
    repeat(first, least, most);
  }

  void repeat(std::size_t first, index_t least, index_t most) {
    std::vector<pattern_step> const piece(
        program_.steps.begin() + static_cast<std::ptrdiff_t>(first), program_.steps.end());
    program_.steps.resize(first);
    for (index_t i = 0; i < least; ++i) append(piece);
    if (most < 0) {  // L: split out; piece; jump L
      std::size_t const loop = size();
      emit({.what = kind::split, .target = distance(loop, loop + piece.size() + 2)});
      append(piece);
      emit({.what = kind::jump, .target = distance(size(), loop)});
    }
    for (index_t i = least; i < most; ++i) {  // split past it; piece
      emit({.what = kind::split, .target = distance(size(), size() + piece.size() + 1)});
      append(piece);
    }
  }
  void append(std::vector<pattern_step> const& piece) {
    check_room(piece.size());
    for (pattern_step const& step : piece) emit(step);
  }

  selection_source source_;
  std::string_view pattern_;
  std::size_t position_ = 0;
  pattern_program program_;
};

}  // namespace detail

LAMINA_NAMESPACE_END
