// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Task "words": arithmetic in a story of one or two steps, right if the response ends on the right
// number.
#pragma once

#include <array>

#include "examples/layer_sweep/last_integer.hpp"
#include "examples/layer_sweep/text_task.hpp"

namespace layer_sweep {

/// `Mia has 7 shells and buys 5 more. How many shells does Mia have now?` with the opening
/// `Answer: `, worth 1 iff the last number of the line is 12. Without the opening a small model
/// explains at length what it is going to do.
struct word_problems {
  static constexpr std::string_view name = "words";
  static constexpr text_recipe recipe{
      .steps = 12, .learning_rate = 1e-5, .layer_learning_rate = 1e-4, .response_length = 16};
  static constexpr std::string_view system = "Answer with a number.";
  static constexpr std::string_view opening = "Answer: ";
  static constexpr bool one_line = true;

  enum class operation { add, subtract, multiply, add_subtract, multiply_add, multiply_subtract };

  /// A story template: {a}, {b}, {c} numbers, {n}, {m} names, {o} objects.
  struct story {
    operation what;
    std::string_view text;
  };
  static constexpr std::array stories{
      story{operation::add, "{n} has {a} {o} and buys {b} more. How many {o} does {n} have now?"},
      story{operation::add,
            "There are {a} {o} on the table and {b} {o} in a box. How many {o} are there in all?"},
      story{operation::add,
            "{n} found {a} {o} in the morning and {b} in the evening. How many {o} did {n} find?"},
      story{operation::add,
            "{n} has {a} {o} and {m} has {b} {o}. How many {o} do they have together?"},
      story{operation::subtract, "{n} has {a} {o} and gives away {b}. How many {o} are left?"},
      story{operation::subtract,
            "{n} had {a} {o} and lost {b} of them. How many {o} does {n} still have?"},
      story{operation::subtract, "A shop has {a} {o} and sells {b}. How many {o} are left?"},
      story{operation::subtract,
            "{n} has {a} {o} and {m} has {b} {o}. How many more {o} does {n} have?"},
      story{operation::multiply,
            "{n} has {a} bags with {b} {o} each. How many {o} are there in all?"},
      story{operation::multiply, "One box holds {b} {o}. How many {o} do {a} boxes hold?"},
      story{operation::multiply,
            "{n} buys {a} {o} for {b} dollars each. How many dollars does {n} pay?"},
      story{operation::add_subtract,
            "{n} has {a} {o}, buys {b} more and gives {c} to {m}. How many {o} does {n} have now?"},
      story{operation::add_subtract,
            "There are {a} {o} in a jar. {n} adds {b} and takes out {c}. How many {o} are in the "
            "jar now?"},
      story{operation::multiply_add,
            "{n} has {a} boxes with {b} {o} each and {c} more {o}. How many {o} are there in all?"},
      story{operation::multiply_subtract,
            "{n} buys {a} packs of {b} {o} and uses {c} of them. How many {o} are left?"}};
  static constexpr std::array<std::string_view, 16> names{
      "Tom",  "Anna", "Sam",  "Mia",  "Ben", "Lily", "Max",  "Emma",
      "Jack", "Lucy", "Paul", "Nora", "Leo", "Ella", "Adam", "Ruth"};
  static constexpr std::array<std::string_view, 14> objects{
      "apples", "books", "coins",   "pencils", "cards", "shells",  "eggs",
      "stamps", "balls", "flowers", "cookies", "toys",  "marbles", "oranges"};

  struct problem {
    std::size_t story = 0;
    std::size_t name = 0;
    std::size_t other_name = 0;
    std::size_t object = 0;
    int a = 0;
    int b = 0;
    int c = 0;
    friend bool operator==(problem const&, problem const&) = default;
  };

  /// Numbers are at least 2, and no number of things is negative on the way.
  static problem draw(lamina::counter_generator& draws) {
    auto const below = [&draws](std::size_t count) {
      return static_cast<std::size_t>(draws.below(static_cast<std::uint32_t>(count)));
    };
    auto const number = [&](int least, int most) {
      return least + static_cast<int>(below(static_cast<std::size_t>(most - least + 1)));
    };
    problem p;
    p.story = below(stories.size());
    p.name = below(names.size());
    p.other_name = (p.name + 1 + below(names.size() - 1)) % names.size();
    p.object = below(objects.size());
    switch (stories[p.story].what) {
      case operation::add:
        p.a = number(2, 20);
        p.b = number(2, 20);
        break;
      case operation::subtract:
        p.a = number(4, 20);
        p.b = number(2, p.a - 2);
        break;
      case operation::multiply:
        p.a = number(2, 9);
        p.b = number(2, 9);
        break;
      case operation::add_subtract:
        p.a = number(2, 12);
        p.b = number(2, 12);
        p.c = number(2, p.a + p.b - 2);
        break;
      case operation::multiply_add:
        p.a = number(2, 6);
        p.b = number(2, 6);
        p.c = number(2, 9);
        break;
      case operation::multiply_subtract:
        p.a = number(2, 6);
        p.b = number(2, 6);
        p.c = number(2, p.a * p.b - 2);
        break;
    }
    return p;
  }

  static int answer(problem const& p) {
    switch (stories[p.story].what) {
      case operation::add: return p.a + p.b;
      case operation::subtract: return p.a - p.b;
      case operation::multiply: return p.a * p.b;
      case operation::add_subtract: return p.a + p.b - p.c;
      case operation::multiply_add: return p.a * p.b + p.c;
      case operation::multiply_subtract: return p.a * p.b - p.c;
    }
    return 0;
  }

  /// The arithmetic: who has how many of what in which story does not matter, nor the order of what
  /// is added or multiplied.
  static std::string identity(problem const& p) {
    int const low = (std::min)(p.a, p.b), high = (std::max)(p.a, p.b);
    auto const text = [](auto const&... parts) { return lamina::detail::join(parts...); };
    switch (stories[p.story].what) {
      case operation::add: return text(low, "+", high);
      case operation::subtract: return text(p.a, "-", p.b);
      case operation::multiply: return text(low, "*", high);
      case operation::add_subtract: return text(low, "+", high, "-", p.c);
      case operation::multiply_add: return text(low, "*", high, "+", p.c);
      case operation::multiply_subtract: return text(low, "*", high, "-", p.c);
    }
    return {};
  }

  static std::string question(problem const& p) {
    std::string text;
    std::string_view const story = stories[p.story].text;
    for (std::size_t i = 0; i < story.size(); ++i) {
      if (story[i] != '{') {
        text += story[i];
        continue;
      }
      switch (story[i + 1]) {
        case 'a': text += std::to_string(p.a); break;
        case 'b': text += std::to_string(p.b); break;
        case 'c': text += std::to_string(p.c); break;
        case 'n': text += names[p.name]; break;
        case 'm': text += names[p.other_name]; break;
        case 'o': text += objects[p.object]; break;
      }
      i += 2;
    }
    return text;
  }

  static double grade(problem const& p, std::string_view response) {
    return last_integer(response) == answer(p) ? 1 : 0;
  }
};

static_assert(text_problems<word_problems>);

}  // namespace layer_sweep
