// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the numbers of a sweep with a pretrained model depend on, in words.
#pragma once

#include "examples/layer_sweep/chat_model.hpp"
#include "examples/layer_sweep/provenance.hpp"

namespace layer_sweep {

/// The shape of a model in a line.
inline std::string shape_text(decoder::config const& shape) {
  return lamina::detail::join(shape.layer_count, " layers, width ", shape.width, ", ",
                              shape.head_count, " heads of ", shape.head_width, ", ",
                              shape.kv_head_count, " key/value heads, feed-forward ",
                              shape.ffn_width, ", vocabulary ", shape.vocab,
                              shape.tied_head ? ", tied head" : "", ", computed in float32");
}

template <text_problems Problems>
std::vector<lamina::report_setting> text_provenance(settings const& s,
                                                    decoder::pretrained const& source,
                                                    chat_tokens const& tokens) {
  auto const number = [](index_t value) { return std::to_string(value); };
  std::vector<lamina::report_setting> list{
      {"task", s.task},
      {"fingerprint of the problems", problems_fingerprint<Problems>()},
      {"model", source.identity()},
      {"shape", shape_text(source.shape())},
      {"tokenizer", tokens.fingerprint()},
      {"chat template", "fnv1a " + lamina::hex_text(lamina::fnv1a_64(tokens.template_text()))},
      {"system prompt", std::string(Problems::system)},
      {"opening of every response",
       Problems::opening.empty() ? "none" : std::string(Problems::opening)},
      {"end of a response",
       Problems::one_line ? "the model's end token or a line break" : "the model's end token"},
      {"longest response", number(s.response_length) + " tokens, the one that ends it included; "
                                                       "one that is cut off is worth nothing"}};
  append(list, training_provenance(s));
  append(list, {{"evaluation",
                 number(s.evaluation_prompts) + " held-out problems; score = mean reward of " +
                     number(s.evaluation_samples) + " samples of each at temperature " +
                     lamina::exact_text(s.temperature) +
                     " with the same noise for all runs, no top-k or top-p; besides, greedily"}});
  append(list, sweep_provenance(s));
  return list;
}

}  // namespace layer_sweep
