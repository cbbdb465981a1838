// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Opens a published model, puts a prompt to it in its chat template and prints the answer as it
// grows. Exit status 0, or 2 with one line on the error stream.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>

#include "examples/decoder/chat_template.hpp"
#include "examples/decoder/pretrained_tokenizer.hpp"
#include "examples/decoder/sampler.hpp"
#include "examples/support/gemm.hpp"

namespace {

struct settings {
  std::string model;
  std::string prompt;
  std::string system;
  bool raw = false;
  bool verbose = false;
  decoder::index_t max_tokens = 256;
  decoder::sampling_options sampling{.temperature = 0};
};

/// Prints what is drawn until the token that ends an answer.
struct printing {
  decoder::text_stream text;
  std::optional<std::int32_t> end;

  bool advance(decoder::index_t, std::int32_t token, std::vector<std::int32_t>&) {
    if (token == end) return false;
    std::fputs(text.add(token).c_str(), stdout);
    std::fflush(stdout);
    return true;
  }
};

std::vector<std::int32_t> encode_prompt(settings const& s, decoder::tokenizer const& tokens,
                                        std::string const& jinja) {
  if (s.raw) return tokens.encode(s.prompt);
  std::vector<decoder::chat_message> messages;
  if (!s.system.empty()) messages.push_back({"system", s.system});
  messages.push_back({"user", s.prompt});
  return tokens.encode(decoder::chat_template(jinja).render(messages),
                       {.add_special_tokens = false});
}

void generate(settings const& s) {
  decoder::pretrained const source(s.model);
  if (s.verbose) std::fprintf(stderr, "%s\n", source.identity().c_str());
  auto const definition = decoder::read_tokenizer(source);
  decoder::tokenizer const tokens(definition);
  std::vector<std::vector<std::int32_t>> const prompts{
      encode_prompt(s, tokens, definition.chat_template)};
  auto const model = decoder::load_pretrained(examples::chosen_backend<float>{}, source);

  decoder::sampling_options sampling = s.sampling;
  sampling.greedy = sampling.temperature == 0;
  if (sampling.greedy) sampling.temperature = 1;
  printing session{decoder::text_stream(tokens, {.skip_special_tokens = true}), tokens.eos_id()};
  auto const length = static_cast<decoder::index_t>(prompts[0].size()) + s.max_tokens;
  decoder::sample(model, prompts, 1, session, sampling, length);
  std::printf("%s\n", session.text.finish().c_str());
}

}  // namespace

int main(int argument_count, char** arguments) {
  settings s;
  CLI::App app("Puts a prompt to a Llama, Qwen2 or Qwen3 model and prints its answer.", "generate");
  app.add_option("--model", s.model, "directory of Hugging Face, or GGUF file")->required();
  app.add_option("--prompt", s.prompt, "what the user says")->required();
  app.add_option("--system", s.system, "what the system says (what the template has)");
  app.add_flag("--raw", s.raw, "the prompt is no chat: the model continues it");
  app.add_option("--max-tokens", s.max_tokens, "most tokens of the answer")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--temperature", s.sampling.temperature, "of sampling; 0 takes the most likely")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--top-k", s.sampling.allowed.top_k, "draw from the k most likely tokens");
  app.add_option("--top-p", s.sampling.allowed.top_p, "draw from this share of the mass")
      ->capture_default_str();
  app.add_option("--seed", s.sampling.seed, "of the draws")->capture_default_str();
  app.add_flag("--verbose", s.verbose, "print what the model is on the error stream");
  try {
    app.parse(argument_count, arguments);
    generate(s);
    return 0;
  } catch (CLI::ParseError const& problem) {
    return app.exit(problem) == 0 ? 0 : 2;
  } catch (std::exception const& problem) {
    std::fprintf(stderr, "generate: %s\n", problem.what());
    return 2;
  }
}
