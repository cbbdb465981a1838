// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "examples/layer_sweep/word_problems.hpp"

#include <doctest/doctest.h>

#include <set>

#include "examples/text_laws.hpp"

using namespace layer_sweep;

namespace {

word_problems::problem story(word_problems::operation what, int a, int b, int c = 0) {
  word_problems::problem p{.a = a, .b = b, .c = c};
  while (word_problems::stories[p.story].what != what) ++p.story;
  return p;
}

}  // namespace

TEST_CASE("last_integer: numbers as people write them") {
  CHECK(last_integer("12") == 12);
  CHECK(last_integer("The answer is 12.") == 12);
  CHECK(last_integer("7 + 5 = 12 apples") == 12);
  CHECK(last_integer("12 apples, no more") == 12);
  CHECK(last_integer("**12**") == 12);
  CHECK(last_integer("$12") == 12);
  CHECK(last_integer("It costs $1,234.") == 1234);
  CHECK(last_integer("1,234,567 dollars") == 1234567);
  CHECK(last_integer("12.00") == 12);
  CHECK(last_integer("12cm") == 12);
  CHECK(last_integer("007") == 7);
  CHECK(last_integer("no, 0") == 0);
}

TEST_CASE("last_integer: the last number counts, whatever came before") {
  CHECK(last_integer("12 or 13") == 13);
  CHECK(last_integer("5, 7, 12") == 12);
  CHECK(last_integer("1,23") == 23);      // no thousands
  CHECK(last_integer("1,2345") == 2345);  // nor here
  CHECK(last_integer("1234,567") == 567);
  CHECK(last_integer("0.5 of 24 is 12") == 12);
}

TEST_CASE("last_integer: a minus belongs to a number only where it cannot be a subtraction") {
  CHECK(last_integer("-5") == -5);
  CHECK(last_integer("it is -5") == -5);
  CHECK(last_integer("(-5)") == -5);
  CHECK(last_integer("10 - 5") == 5);
  CHECK(last_integer("10-5") == 5);
  CHECK(last_integer("x-5") == 5);
}

TEST_CASE("last_integer: what is no integer is none, even after an integer") {
  for (char const* text : {"", "twelve", "apples", "3.5", "12 or 3.5", "1/2", "B2", "v_2", "12.50",
                           "1234567890123456789"}) {
    CAPTURE(text);
    CHECK(last_integer(text) == std::nullopt);
  }
}

TEST_CASE("words: every operation is worked as the story tells it") {
  using enum word_problems::operation;
  CHECK(word_problems::answer(story(add, 7, 5)) == 12);
  CHECK(word_problems::answer(story(subtract, 7, 5)) == 2);
  CHECK(word_problems::answer(story(multiply, 7, 5)) == 35);
  CHECK(word_problems::answer(story(add_subtract, 7, 5, 4)) == 8);
  CHECK(word_problems::answer(story(multiply_add, 7, 5, 4)) == 39);
  CHECK(word_problems::answer(story(multiply_subtract, 7, 5, 4)) == 31);
}

TEST_CASE("words: a question names its numbers and its people") {
  word_problems::problem const p{.story = 0, .name = 3, .object = 5, .a = 7, .b = 5};
  CHECK(word_problems::question(p) ==
        "Mia has 7 shells and buys 5 more. How many shells does Mia have now?");
  for (std::size_t s = 0; s < word_problems::stories.size(); ++s) {
    std::string const text =
        word_problems::question({.story = s, .other_name = 1, .a = 97, .b = 98});
    CAPTURE(text);
    CHECK(text.find_first_of("{}") == std::string::npos);
    CHECK(text.find("97") != std::string::npos);
    CHECK(text.find("98") != std::string::npos);
    CHECK(text.back() == '?');
  }
}

TEST_CASE("words: the identity is the arithmetic, whoever it is about") {
  using enum word_problems::operation;
  auto p = story(add, 7, 5);
  auto q = story(add, 5, 7);
  q.name = 4;
  q.object = 2;
  CHECK(word_problems::identity(p) == word_problems::identity(q));
  CHECK(word_problems::identity(story(subtract, 7, 5)) !=
        word_problems::identity(story(subtract, 5, 7)));
  CHECK(word_problems::identity(story(multiply_add, 2, 3, 4)) ==
        word_problems::identity(story(multiply_add, 3, 2, 4)));
  CHECK(word_problems::identity(story(add, 7, 5)) !=
        word_problems::identity(story(multiply, 7, 5)));
}

TEST_CASE("words: drawn numbers are those of things, at every step") {
  std::set<std::string> questions, identities;
  for (index_t i = 0; i < 4000; ++i) {
    auto draws = draws_for(draw::training_prompt, 3, 0, i);
    auto const p = word_problems::draw(draws);
    REQUIRE(word_problems::answer(p) >= 2);
    REQUIRE(word_problems::answer(p) <= 81);
    REQUIRE(p.a >= 2);
    REQUIRE(p.b >= 2);
    REQUIRE(p.name != p.other_name);
    questions.insert(word_problems::question(p));
    identities.insert(word_problems::identity(p));
  }
  CHECK(questions.size() > 3500);
  CHECK(identities.size() > 800);
}

TEST_CASE("words: the right number is right, near misses are not") {
  using enum word_problems::operation;
  auto const p = story(add, 7, 5);
  for (char const* right : {"12", "7 + 5 = 12 shells.", "She has 12."}) {
    CHECK(word_problems::grade(p, right) == 1);
  }
  for (char const* wrong :
       {"", "11", "112", "12 - 5 = 7", "-12", "12.5", "1 2", "12 of 13", "75"}) {
    CAPTURE(wrong);
    CHECK(word_problems::grade(p, wrong) == 0);
  }
}

TEST_CASE("words: the laws of a text task") {
  layer_sweep::testing::check_text_task<word_problems>();
}
