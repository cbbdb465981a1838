// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A chat model from files: weights, tokenizer and chat template together.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "examples/decoder/chat_template.hpp"
#include "examples/decoder/pretrained_tokenizer.hpp"
#include "examples/layer_sweep/text_task.hpp"

namespace layer_sweep {

/// A chat_codec: conversations by the model's template, through its tokenizer. Copies share both.
class chat_tokens {
 public:
  /// Throws config_error for a template that is not known, and if the tokenizer has no token that
  /// ends a response.
  explicit chat_tokens(decoder::tokenizer tokenizer)
      : tokenizer_(std::make_shared<decoder::tokenizer const>(std::move(tokenizer))),
        template_(std::make_shared<decoder::chat_template const>(tokenizer_->chat_template())) {
    if (auto const id = tokenizer_->eos_id()) ends_.push_back(*id);
    for (char const* text : {"<|im_end|>", "<|endoftext|>", "<|eot_id|>"}) {
      if (auto const id = tokenizer_->find(text)) ends_.push_back(*id);
    }
    if (ends_.empty()) {
      lamina::throw_config_error("chat_tokens: the tokenizer has no end-of-sequence token");
    }
  }

  std::vector<token_id> encode(std::string_view system, std::string_view user,
                               std::string_view opening) const {
    decoder::chat_message const messages[] = {{"system", std::string(system)},
                                              {"user", std::string(user)}};
    return tokenizer_->encode(template_->render(messages).append(opening),
                              {.add_special_tokens = false});
  }
  std::string decode(std::span<token_id const> tokens) const {
    return tokenizer_->decode(tokens, {.skip_special_tokens = true});
  }
  bool ends(token_id token) const {
    return std::find(ends_.begin(), ends_.end(), token) != ends_.end();
  }

  std::string const& template_text() const { return tokenizer_->chat_template(); }

  /// Differs where the tokenizer does: a hash of every token's bytes and of some encoded text.
  std::string fingerprint() const {
    std::string bytes;
    for (token_id id = 0; id < tokenizer_->size(); ++id) bytes += tokenizer_->bytes(id) + '\0';
    for (token_id const id : encode("Tokenizers differ.", "In 1,234 ways, don't they?\n", "")) {
      bytes += std::to_string(id) + ' ';
    }
    return std::to_string(tokenizer_->size()) + " tokens, fnv1a " +
           lamina::hex_text(lamina::fnv1a_64(bytes));
  }

 private:
  std::shared_ptr<decoder::tokenizer const> tokenizer_;
  std::shared_ptr<decoder::chat_template const> template_;
  std::vector<token_id> ends_;
};

static_assert(chat_codec<chat_tokens>);

/// The conversation side of a pretrained model. Throws as the readers do.
inline chat_tokens chat_tokens_of(decoder::pretrained const& source) {
  return chat_tokens(decoder::tokenizer(decoder::read_tokenizer(source)));
}

}  // namespace layer_sweep
