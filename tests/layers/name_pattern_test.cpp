// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/name_pattern.hpp"

#include <doctest/doctest.h>

#include <regex>

#include "lamina/core/random.hpp"

using namespace lamina;

namespace {

bool matches(char const* pattern, std::string const& name) {
  return name_pattern(pattern).matches(name);
}

std::string refusal(std::string_view pattern) {
  try {
    name_pattern const accepted(pattern);
  } catch (selection_error const& problem) {
    return problem.what();
  }
  return "no error";
}

// A pattern both dialects read alike: what std::regex does with empty alternatives and repeated
// anchors is not asked.
std::string random_pattern(counter_generator& random, int depth) {
  auto const atom = [&]() -> std::string {
    switch (random.below(depth > 2 ? 6 : 8)) {
      case 0: return "a";
      case 1: return "b";
      case 2: return ".";
      case 3: return "[ab]";
      case 4: return "[^a]";
      case 5: return "\\.";
      default: return "(" + random_pattern(random, depth + 1) + ")";
    }
  };
  char const* const repetitions[] = {"", "", "", "*", "+", "?", "{2}", "{1,}", "{0,2}", "{1,2}"};
  std::string pattern;
  for (std::uint32_t alternative = 0, count = 1 + random.below(2); alternative < count;
       ++alternative) {
    if (alternative > 0) pattern += '|';
    if (random.below(6) == 0) pattern += '^';
    for (std::uint32_t i = 0, length = 1 + random.below(3); i < length; ++i) {
      pattern += atom() + repetitions[random.below(10)];
    }
    if (random.below(6) == 0) pattern += '$';
  }
  return pattern;
}

}  // namespace

TEST_CASE("name_pattern: it is searched for, and anchors hold it to the whole name") {
  std::string const name = "model.layers.10.self_attn.q_proj.weight";
  CHECK(matches("q_proj", name));
  CHECK(matches("^model\\.", name));
  CHECK_FALSE(matches("^layers", name));
  CHECK(matches("weight$", name));
  CHECK_FALSE(matches("proj$", name));
  CHECK(matches("^model\\.layers\\.\\d+\\.self_attn\\.[qk]_proj\\.weight$", name));
  CHECK_FALSE(matches("layers\\.1\\.", name));
  CHECK(matches("layers\\.(1|10|2)\\.", name));
  CHECK(matches("^$", ""));
  CHECK_FALSE(matches("^$", "a"));
  CHECK(matches("a*", ""));
  CHECK_FALSE(matches("a$^b", "ab"));
}

TEST_CASE("name_pattern: every form of the syntax, by hand") {
  CHECK(matches("^a.c$", "a/c"));
  CHECK_FALSE(matches("^a.c$", "ac"));
  CHECK(matches("^[a-c_]+$", "a_cb"));
  CHECK_FALSE(matches("^[a-c_]+$", "a-c"));
  CHECK(matches("^[a-c-]+$", "a-c"));
  CHECK(matches("^[^\\d.]+$", "abc"));
  CHECK_FALSE(matches("^[^\\d.]+$", "ab1"));
  CHECK(matches("^[\\]\\[\\\\]+$", "[]\\"));
  CHECK(matches("^\\w+\\W\\D$", "a_9.x"));
  CHECK_FALSE(matches("^\\w+\\W\\D$", "a_9.1"));
  CHECK(matches("^a{2}$", "aa"));
  CHECK_FALSE(matches("^a{2}$", "aaa"));
  CHECK(matches("^a{2,}$", "aaaa"));
  CHECK_FALSE(matches("^a{2,}$", "a"));
  CHECK(matches("^a{0,2}$", ""));
  CHECK_FALSE(matches("^a{1,2}$", "aaa"));
  CHECK(matches("^(ab|c)*$", "abcab"));
  CHECK(matches("^(a*)*b$", "aab"));
  CHECK(matches("^params\\/h\\/0$", "params/h/0"));
  CHECK(matches("\xc3\xa9", "caf\xc3\xa9"));
}

TEST_CASE("name_pattern: what it does not know is refused by name and offset") {
  auto const at = [](int offset, std::string const& pattern, std::string const& what) {
    return "name_pattern: at offset " + std::to_string(offset) + " of the pattern \"" + pattern +
           "\": " + what;
  };
  CHECK(refusal("") == "name_pattern: the pattern is empty");
  CHECK(refusal("a(b") == at(3, "a(b", "expected \")\""));
  CHECK(refusal("ab)") == at(2, "ab)", "\")\" closes no group"));
  CHECK(refusal("a||b") == at(2, "a||b", "expected something to match where nothing is"));
  CHECK(refusal("()") == at(1, "()", "expected something to match where nothing is"));
  CHECK(refusal("(?=a)") ==
        at(1, "(?=a)", "\"(?\" is not supported: no look-around and no named groups"));
  CHECK(refusal("(a)\\1") == at(4, "(a)\\1", "back-references such as \"\\1\" are not supported"));
  CHECK(refusal("\\bq") == at(1, "\\bq",
                              "\"\\b\" is not supported, expected \\d, \\D, \\w, \\W or an escaped "
                              "sign such as \\."));
  CHECK(refusal("a\\") == at(2, "a\\", "expected a character behind \"\\\""));
  CHECK(refusal("*a") == at(0, "*a", "\"*\" repeats nothing; a literal one needs a \\"));
  CHECK(refusal("a}") == at(1, "a}", "\"}\" opens nowhere; a literal one needs a \\"));
  CHECK(refusal("a+?") == at(2, "a+?",
                             "repetitions of repetitions, lazy and possessive ones are not "
                             "supported"));
  CHECK(refusal("^*") == at(1, "^*", "an anchor cannot be repeated"));
  CHECK(refusal("a{,2}") == at(2, "a{,2}", "expected a number of repetitions"));
  CHECK(refusal("a{2") == at(3, "a{2", "expected \"}\""));
  CHECK(refusal("a{3,2}") == at(6, "a{3,2}", "the most repetitions are 2, expected at least 3"));
  CHECK(refusal("a{0}") == at(4, "a{0}", "the most repetitions are 0, expected at least 1"));
  CHECK(refusal("a{256}") == at(4, "a{256}", "expected at most 255 repetitions"));
  CHECK(refusal("x[a") == at(1, "x[a", "the class is not closed, expected \"]\""));
  CHECK(refusal("[]") == at(2, "[]", "the class is empty"));
  CHECK(refusal("[b-a]") == at(4, "[b-a]", "the range of characters is reversed"));
  CHECK(refusal("[a-\\d]") == at(5, "[a-\\d]", "a range ends in a set of characters"));
  CHECK(refusal("[[:alpha:]]") == at(1, "[[:alpha:]]", "\"[\" inside a class needs a \\"));
}

TEST_CASE("name_pattern: size is bounded before anything large is made") {
  CHECK(refusal(std::string(1025, 'a')) ==
        "name_pattern: the pattern has 1025 characters, expected at most 1024");
  CHECK(refusal("((a{255}){255}){255}").find("more than 4096 steps") != std::string::npos);
  CHECK(refusal(std::string(40, '(') + "a" + std::string(40, ')')).find("more than 32 deep") !=
        std::string::npos);
  CHECK(refusal(std::string(1024, 'a')) == "no error");
}

TEST_CASE("name_pattern: linear where back-tracking is exponential, flat where it is deep") {
  std::string const many(100'000, 'a');
  CHECK_FALSE(matches("^(a|a)*(a|aa)+(a*)*b$", many));
  CHECK(matches("^(a|b)*$", many));
}

TEST_CASE("name_pattern: agrees with std::regex on random small patterns and names") {
  counter_generator random(21);
  int matched = 0, compared = 0;
  for (int i = 0; i < 1500; ++i) {
    std::string const pattern = random_pattern(random, 0);
    name_pattern const ours(pattern);
    std::regex const theirs(pattern);
    for (int n = 0; n < 6; ++n) {
      std::string name;
      for (std::uint32_t c = 0, length = random.below(7); c < length; ++c) {
        name += "ab."[random.below(3)];
      }
      CAPTURE(pattern);
      CAPTURE(name);
      bool const expected = std::regex_search(name, theirs);
      REQUIRE(ours.matches(name) == expected);
      matched += expected;
      ++compared;
    }
  }
  CHECK(matched > compared / 5);
  CHECK(matched < compared * 19 / 20);
}
