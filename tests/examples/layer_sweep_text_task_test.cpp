// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A text task from the conversation to the trained model, with a model and a codec of a few
// characters.
#include "examples/layer_sweep/text_task.hpp"

#include <doctest/doctest.h>

#include "examples/layer_sweep/grpo_run.hpp"
#include "examples/layer_sweep/score.hpp"
#include "lamina/backend/eigen.hpp"

using namespace layer_sweep;

namespace {

// Say the letter you are asked for and nothing else.
struct echo {
  static constexpr std::string_view name = "echo";
  static constexpr text_recipe recipe{};
  static constexpr std::string_view system = "c";
  static constexpr std::string_view opening = "a";
  static constexpr bool one_line = true;
  struct problem {
    char letter = 'a';
    friend bool operator==(problem const&, problem const&) = default;
  };
  static problem draw(lamina::counter_generator& draws) {
    return {static_cast<char>('a' + draws.below(3))};
  }
  static std::string identity(problem const& p) { return {p.letter}; }
  static std::string question(problem const& p) { return {p.letter}; }
  static double grade(problem const& p, std::string_view response) {
    return response == std::string(1, p.letter) ? 1 : 0;
  }
};

// a b c are 0 1 2, a line break is 3, the end is 4.
struct letters {
  std::vector<token_id> encode(std::string_view system, std::string_view user,
                               std::string_view opening) const {
    std::vector<token_id> tokens;
    for (std::string_view const part : {system, user, opening}) {
      for (char const c : part) tokens.push_back(c - 'a');
    }
    return tokens;
  }
  std::string decode(std::span<token_id const> tokens) const {
    std::string text;
    for (token_id const token : tokens) text += "abc\n"[token];
    return text;
  }
  bool ends(token_id token) const { return token == 4; }
};

struct other_echo : echo {
  static constexpr std::string_view system = "b";
};

using task_type = text_task<echo, letters>;
task_type const task({}, 4, 1);

using backend = lamina::eigen_backend<float>;

decoder::transformer<backend> new_model() {
  decoder::transformer<backend> model(backend{}, {.layer_count = 2, .vocab = 5});
  model.initialize(1);
  return model;
}

struct outcome {
  bool done;
  double reward;
};
outcome told(std::vector<token_id> const& tokens) {
  auto episode = task.start({'b'});
  for (token_id const token : tokens) {
    REQUIRE_FALSE(episode.done());
    CHECK(episode.accept(token).empty());
  }
  return {episode.done(), episode.reward()};
}

}  // namespace

TEST_CASE("text_task: the same draw is the same problem") {
  CHECK(task.training_prompt(1, 2, 3) == task.training_prompt(1, 2, 3));
}

TEST_CASE("text_task: the prompt is system, question and the opening of the response") {
  CHECK(task.encode({'b'}) == std::vector<token_id>{2, 1, 0});
}

TEST_CASE("text_task: a response ends with the end token or, on one line, with the line") {
  CHECK(told({1, 3}).done);
  CHECK(told({1, 3}).reward == 1);
  CHECK(told({0, 3}).reward == 0);
  CHECK(told({1, 4}).done);
  CHECK(told({1, 4}).reward == 1);
  CHECK(told({1, 1, 4}).reward == 0);
  CHECK(told({3}).reward == 0);
  CHECK_FALSE(told({1, 1, 2}).done);
}

TEST_CASE("episodes: a response of the longest length is cut off, counted and worth nothing") {
  std::vector<echo::problem> const prompts{{'b'}, {'c'}};
  episodes<task_type> world(task, prompts, 2);
  CHECK(world.max_length() == 7);
  std::vector<token_id> forced;
  CHECK(world.advance(0, 1, forced));
  CHECK_FALSE(world.advance(0, 3, forced));
  for (int i = 0; i < 3; ++i) CHECK(world.advance(1, 1, forced));
  CHECK_FALSE(world.advance(1, 1, forced));
  CHECK_FALSE(world.advance(2, 4, forced));
  CHECK(world.advance(3, 2, forced));
  CHECK_FALSE(world.advance(3, 3, forced));
  CHECK(forced.empty());
  CHECK(world.rewards() == std::vector<float>{1, 0, 0, 1});
  CHECK(world.truncated_count() == 1);
  CHECK(world.response_token_count() == 2 + 4 + 1 + 2);
}

TEST_CASE("text_task: a model learns it, also at another temperature") {
  for (double const temperature : {1.0, 0.7}) {
    settings s;
    s.layers = 2;
    s.steps = 50;
    s.learning_rate = 3e-3;
    s.temperature = temperature;
    s.profile = "1";
    auto model = new_model();
    // Only training problems: with three letters, all of them unless one is held out.
    std::vector<echo::problem> prompts;
    for (char const letter : {'a', 'b', 'c'}) {
      if (!task.held_out({letter})) prompts.push_back({letter});
    }
    sampled_and_greedy_score const evaluate(task, prompts, 64, temperature);
    double const before = evaluate(model).value;
    train(task, model, s, variant_list(s).row("full"), 1);
    score const after = evaluate(model);
    CHECK(before < 0.3);
    CHECK(after.value > 0.7);
  }
}

TEST_CASE("text_task: problems of other words, answers or split have another fingerprint") {
  CHECK(problems_fingerprint<echo>() == problems_fingerprint<echo>());
  CHECK(problems_fingerprint<echo>() != problems_fingerprint<other_echo>());
}
