// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The engine pretrains a small GPT-2 by SGD; then lamina trains its middle layer by GRPO and keeps
// what changed as a patch. Fails unless the reward rises, every other weight has the bits it had,
// and the patch makes the trained model of a fresh base and the base of that again.
#include <cstdio>

#include "examples/llmc_style/adopt.hpp"

namespace {

constexpr gpt2_config config{
    .vocab = sort_vocab, .max_tokens = episode_tokens - 1, .layers = 3, .heads = 4, .width = 32};
constexpr long layer = 1, group = 8;

float mean_reward(gpt2* m, episodes* e, unsigned long* random) {
  float sum = 0;
  for (int i = 0; i < 8; ++i) {
    draw_prompts(e, 1, random);
    sum += sample_answers(m, e, random);
  }
  return sum / 8;
}

void copy(float* to, float const* from, long count) {
  std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

bool same(float const* a, float const* b, long count) {
  return std::memcmp(a, b, static_cast<size_t>(count) * sizeof(float)) == 0;
}

// Whether every tensor of `layer` differs, and no bit outside it.
bool only_layer_differs(gpt2 const* a, gpt2 const* b) {
  bool result = true;
  for (int t = 0; t < tensor_count; ++t) {
    for (long l = 0; l < (t < layer_tensors ? config.layers : 1); ++l) {
      long const offset = l * a->sizes[t];
      bool const trained = t < layer_tensors && l == layer;
      result =
          result && same(a->tensors[t] + offset, b->tensors[t] + offset, a->sizes[t]) != trained;
    }
  }
  return result;
}

}  // namespace

int main(int argument_count, char** arguments) {
  char const* const path = argument_count > 1 ? arguments[1] : "llmc_style_layer.safetensors";
  unsigned long random = 3;
  gpt2 engine, base;
  gpt2_build(&engine, config, 1);
  gpt2_build(&base, config, 1);
  episodes demonstrations, e;
  sorting_alloc(&demonstrations, 32);
  sorting_alloc(&e, 64);

  gpt2_reserve(&engine, demonstrations.B, demonstrations.T);
  float loss = 0;
  for (int i = 0; i < 250; ++i) loss = pretrain_step(&engine, &demonstrations, 0.2f, &random);
  gpt2_free_grads(&engine);
  std::printf("pretrained: cross-entropy %.2f\n", loss);
  copy(base.params, engine.params, base.param_count);
  gpt2_reserve(&engine, e.B, e.T);
  float const before = mean_reward(&engine, &e, &random);

  // [adopt]
  layer_grpo grpo(&engine, lamina::single_layer(layer), e, group, 0.003);
  for (int i = 0; i < 120; ++i) {
    draw_prompts(&e, group, &random);
    sample_answers(&engine, &e, &random);
    grpo.step(e), grpo.step(e);  // two epochs
  }
  // [/adopt]
  bool const frozen = only_layer_differs(&engine, &base);
  float const after = mean_reward(&engine, &e, &random);
  std::printf("mean reward %.2f -> %.2f, frozen weights bit-identical: %s\n", before, after,
              frozen ? "yes" : "no");
  long gradient_count = 0;
  for (auto const& parameter : lamina::all_parameters(grpo.model)) {
    gradient_count += parameter.gradient.size;
  }
  std::printf("floats: %ld weights, %ld gradients, %ld optimizer state\n", engine.param_count,
              gradient_count, 2 * long{grpo.optimizer.state().element_count()});

  // The patch, from its file, makes the trained model of the base, and the base of that again.
  float* const base_params = gpt2_alloc(base.param_count);
  copy(base_params, base.params, base.param_count);
  gpt2_reserve(&base, e.B, e.T);
  // [adopt]
  grpo.patch().save(path);
  lamina::layer_patch<float> patch{lamina::safetensors_file(path)};
  adopted_gpt2 patched(&base);
  patch.apply(lamina::all_parameters(patched));
  // [/adopt]
  gpt2_forward(&engine, e.inputs);
  gpt2_forward(&base, e.inputs);
  bool const applied = same(base.logits, engine.logits, e.B * e.T * config.vocab);
  patch.revert(lamina::all_parameters(patched));
  bool const reverted = same(base.params, base_params, base.param_count);
  std::printf("patch of %ld tensors: applied %s, reverted %s\n",
              static_cast<long>(patch.tensors().size()), applied ? "exactly" : "wrongly",
              reverted ? "exactly" : "wrongly");

  std::free(base_params);
  gpt2_free(&engine), gpt2_free(&base);
  episodes_free(&demonstrations), episodes_free(&e);
  return frozen && applied && reverted && after > before + 0.3f ? 0 : 1;
}
