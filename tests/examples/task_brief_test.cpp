// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "examples/layer_sweep/brief_sentences.hpp"

#include <doctest/doctest.h>

#include <set>

#include "examples/text_laws.hpp"

using namespace layer_sweep;

namespace {

brief_sentences::problem const river{.word = 0, .question = 0};

}  // namespace

TEST_CASE("brief: the question names the word") {
  CHECK(brief_sentences::question(river) == "Use the word \"river\" in one short sentence.");
  for (std::size_t q = 0; q < brief_sentences::questions.size(); ++q) {
    CHECK(brief_sentences::question({.word = 4, .question = q}).find("table") != std::string::npos);
  }
  std::set<std::string_view> const different(brief_sentences::words.begin(),
                                             brief_sentences::words.end());
  CHECK(different.size() == brief_sentences::words.size());
}

TEST_CASE("brief: one short sentence with the word is right") {
  for (char const* text : {"The river is wide.", "A River runs!", "Is the river deep?",
                           " The river's end is a river.\n",
                           "One two three four five six seven eight nine ten eleven twelve "
                           "thirteen fourteen river."}) {
    CAPTURE(text);
    bool const whole_word = std::string_view(text).find("river") != std::string_view::npos ||
                            std::string_view(text).find("River") != std::string_view::npos;
    CHECK(whole_word);
    CHECK(brief_sentences::grade(river, text) == 1);
  }
}

TEST_CASE("brief: anything else is wrong") {
  for (char const* text :
       {"", " ", ".", "River.", "The river.",              // too short
        "The stone is wide.", "The rivers are wide.",      // another word
        "The river is wide", "The river is wide,",         // no end
        "The river is wide. Yes.", "The river: is wide.",  // not one sentence
        "The river\nis wide.", "Wait... the river is wide.", "The river river is wide.",
        "One two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "river."}) {
    CAPTURE(text);
    CHECK(brief_sentences::grade(river, text) == 0);
  }
}

TEST_CASE("brief: the laws of a text task") {
  layer_sweep::testing::check_text_task<brief_sentences>();
}

TEST_CASE("brief: asking for more held-out problems than there are is an error") {
  using layer_sweep::testing::character_codec;
  text_task<brief_sentences, character_codec> const task({}, 10, 600);
  CHECK_THROWS_WITH_AS(task.evaluation_prompts(),
                       "text_task: 600 held-out problems are asked for, task brief was found to "
                       "have 132",
                       lamina::config_error);
}
