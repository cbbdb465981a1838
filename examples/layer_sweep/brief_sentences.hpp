// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Task "brief": use a word in one short sentence and stop.
#pragma once

#include <array>

#include "examples/layer_sweep/text_task.hpp"

namespace layer_sweep {

/// `Use the word "river" in one short sentence.`, worth 1 iff the response is one sentence of three
/// to fifteen words, one of which is `river`, and nothing else.
struct brief_sentences {
  static constexpr std::string_view name = "brief";
  static constexpr text_recipe recipe{
      .steps = 12, .learning_rate = 1e-5, .layer_learning_rate = 1e-4, .response_length = 28};
  static constexpr std::string_view system = "Be brief.";
  static constexpr std::string_view opening = "";
  static constexpr bool one_line = false;
  static constexpr index_t fewest_words = 3, most_words = 15;

  static constexpr std::array<std::string_view, 4> questions{
      "Use the word \"{}\" in one short sentence.", "Write one short sentence with the word {}.",
      "Write a short sentence about a {}.", "Say something short about a {}."};
  static constexpr std::array<std::string_view, 150> words{
      "river",  "stone",   "lamp",     "cloud",   "table",   "horse",   "paper",   "window",
      "garden", "candle",  "mirror",   "forest",  "bridge",  "basket",  "bottle",  "button",
      "camera", "carpet",  "castle",   "chair",   "circle",  "clock",   "coat",    "corner",
      "desert", "doctor",  "door",     "dragon",  "dress",   "farm",    "feather", "fence",
      "field",  "finger",  "fire",     "fish",    "flag",    "flower",  "fox",     "frog",
      "game",   "gate",    "gift",     "glass",   "goat",    "guitar",  "hammer",  "harbor",
      "hat",    "helmet",  "hill",     "hotel",   "house",   "jacket",  "jar",     "jewel",
      "kettle", "key",     "king",     "kitchen", "kite",    "knife",   "ladder",  "lake",
      "leaf",   "lemon",   "letter",   "library", "lion",    "machine", "map",     "market",
      "meal",   "melody",  "mountain", "mouse",   "museum",  "needle",  "nest",    "notebook",
      "palace", "park",    "parrot",   "path",    "pencil",  "piano",   "picture", "pillow",
      "pirate", "planet",  "pocket",   "poem",    "pond",    "potato",  "prince",  "puzzle",
      "queen",  "rabbit",  "radio",    "rainbow", "ring",    "road",    "robot",   "rocket",
      "roof",   "room",    "rose",     "sailor",  "salad",   "school",  "seed",    "shadow",
      "sheep",  "ship",    "shirt",    "shoe",    "shop",    "singer",  "snake",   "soldier",
      "song",   "soup",    "spoon",    "square",  "stable",  "star",    "station", "storm",
      "story",  "street",  "student",  "sword",   "teacher", "temple",  "tent",    "ticket",
      "tiger",  "tower",   "town",     "toy",     "train",   "tree",    "truck",   "turtle",
      "valley", "village", "violin",   "wall",    "whale",   "wheel"};

  struct problem {
    std::size_t word = 0;
    std::size_t question = 0;
    friend bool operator==(problem const&, problem const&) = default;
  };

  static problem draw(lamina::counter_generator& draws) {
    std::size_t const word = draws.below(static_cast<std::uint32_t>(words.size()));
    return {word, draws.below(static_cast<std::uint32_t>(questions.size()))};
  }

  /// The word: a word that is evaluated is never trained on, however it is asked for.
  static std::string identity(problem const& p) { return std::string(words[p.word]); }

  static std::string question(problem const& p) {
    std::string text(questions[p.question]);
    return text.replace(text.find("{}"), 2, words[p.word]);
  }

  /// A sentence ends in . ! or ? and has none of them, no line break and no word twice in a row
  /// before; a word is a run of letters, digits, apostrophes and hyphens.
  static double grade(problem const& p, std::string_view response) {
    constexpr std::string_view blanks = " \n";
    std::size_t const begin = response.find_first_not_of(blanks);
    if (begin == std::string_view::npos) return 0;
    response = response.substr(begin, response.find_last_not_of(blanks) + 1 - begin);
    constexpr std::string_view ends = ".!?";
    if (response.find_first_of(".!?:\n") != response.size() - 1 ||
        ends.find(response.back()) == std::string_view::npos) {
      return 0;
    }
    index_t count = 0;
    bool found = false;
    std::string word, previous;
    for (char const c : response) {
      char const lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
      bool const inside = (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || c == '\'' ||
                          c == '-' || static_cast<unsigned char>(c) >= 0x80;
      if (inside) word += lower;
      if (inside || word.empty()) continue;
      if (word == previous) return 0;
      ++count;
      found = found || word == words[p.word];
      previous = std::exchange(word, {});
    }
    return found && count >= fewest_words && count <= most_words ? 1 : 0;
  }
};

static_assert(text_problems<brief_sentences>);

}  // namespace layer_sweep
