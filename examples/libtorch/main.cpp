// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A LibTorch engine adopts lamina: GRPO trains one layer of a transformer that torch's autograd
// differentiates, and leaves every other bit as it was. The task: four digits in order.
//
//   libtorch_grpo [SELECTION [PATCH]]     layer 2 by default; such as 1-2, 2:attention, /norm/
//
// Fails unless the reward rises, every frozen tensor has the bits it had, and the patch makes the
// trained model of a fresh base and the base of that again.
#include <torch/torch.h>

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <exception>
#include <sstream>
#include <string>
#include <vector>

#include "examples/libtorch/sorting.hpp"
// [adopt]
#include "examples/libtorch/layered_module.hpp"
#include "lamina/backend/eigen.hpp"
#include "lamina/io/layer_patch.hpp"
#include "lamina/layers/tensor_selection_text.hpp"
#include "lamina/model/transformer.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/policy/log_prob_loss.hpp"
#include "lamina/policy/presets.hpp"
#include "lamina/policy/prompt_groups.hpp"
// [/adopt]

namespace {

using libtorch::torch_vector_view;

bool same_bits(torch::Tensor const& a, torch::Tensor const& b) {
  auto const bytes = static_cast<std::size_t>(a.numel() * a.element_size());
  return a.numel() == b.numel() && std::memcmp(a.data_ptr(), b.data_ptr(), bytes) == 0;
}

// How many of the model's tensors differ from the base, or -1 if a frozen one does.
int tensors_moved(libtorch::transformer const& model, libtorch::transformer const& base) {
  int moved = 0;
  auto const before = base->named_parameters();
  for (auto const& parameter : model->named_parameters()) {
    if (same_bits(parameter.value(), before[parameter.key()])) continue;
    if (!parameter.value().requires_grad()) return -1;
    ++moved;
  }
  return moved;
}

int run(std::string const& text, std::string const& patch_path) {
  constexpr lamina::index_t group_size = 8, sequences = 16 * group_size, steps = 60, epochs = 2;
  torch::set_num_threads(1);
  torch::manual_seed(7);
  libtorch::transformer model;
  libtorch::learn_from_examples(model, 20);
  std::stringstream checkpoint;
  torch::save(model, checkpoint);
  libtorch::transformer base;
  torch::load(base, checkpoint);
  auto const held_out = libtorch::random_prompts(512);
  double const reward_before = libtorch::mean_reward(model, held_out);

  // [adopt]
  lamina::eigen_backend<float> const backend;
  libtorch::layered_module parameters(*model);  // layers and roles from named_parameters()
  auto const selection =
      lamina::parse_selection(text, parameters.layer_count(), lamina::model_tensors(parameters));
  lamina::model_hash const base_hash(lamina::all_parameters(parameters));
  parameters.select(selection);  // requires_grad; what is frozen has no gradient
  lamina::grpo const grpo{.surrogate = {.clip_low = 0.2, .clip_high = 0.28}};
  lamina::adamw optimizer(backend, lamina::trained_parameters(parameters, selection),
                          {.learning_rate = 3e-3, .weight_decay = 0});
  std::vector<lamina::index_t> offsets;
  for (lamina::index_t i = 0; i <= sequences; ++i) offsets.push_back(i * libtorch::answer_length);

  for (lamina::index_t step = 0; step < steps; ++step) {
    auto const r = libtorch::sample(model, libtorch::random_prompts(16), group_size);
    auto const advantages = grpo.advantages(torch_vector_view<float const>(r.rewards),
                                            lamina::prompt_groups::uniform(sequences, group_size));
    lamina::policy_batch<float> const batch{
        .offsets = offsets,
        .old_log_probs = torch_vector_view<float const>(r.log_probs),
        .advantages = advantages.values,
        .denominators = {.sequences = sequences, .tokens = r.log_probs.numel()}};
    for (lamina::index_t epoch = 0; epoch < epochs; ++epoch) {
      // [step]
      auto const log_probs = libtorch::answer_log_probs(model, r.tokens);
      auto const d_log_probs = torch::empty_like(log_probs);
      lamina::policy_loss(grpo, torch_vector_view<float const>(log_probs), batch,
                          torch_vector_view<float>(d_log_probs));
      parameters.zero_gradients();
      log_probs.backward(d_log_probs);  // autograd goes on from d loss / d log-prob
      optimizer.step();
      // [/step]
    }
  }
  lamina::layer_patch patch(
      base_hash, lamina::all_parameters(parameters),
      {.selection = lamina::to_text(selection), .step_count = steps * epochs});
  patch.save(patch_path);
  // [/adopt]

  double const reward_after = libtorch::mean_reward(model, held_out);
  int const moved = tensors_moved(model, base);
  std::printf("trained %s: mean reward %.2f -> %.2f\n", patch.info().selection.c_str(),
              reward_before, reward_after);
  std::printf("%d tensors moved, all others have the bits they had: %s\n", moved,
              moved > 0 ? "yes" : "no");

  // Whoever has the base needs nothing but the patch.
  libtorch::layered_module other(*base);
  auto const base_logits = base(held_out);
  lamina::layer_patch<float> stored{lamina::safetensors_file(patch_path)};
  stored.apply(lamina::all_parameters(other));
  bool const applied =
      tensors_moved(model, base) == 0 && same_bits(base(held_out), model(held_out));
  stored.revert(lamina::all_parameters(other));
  bool const reverted =
      lamina::model_hash(lamina::all_parameters(other)).value() == base_hash.value() &&
      tensors_moved(model, base) == moved && same_bits(base(held_out), base_logits);
  std::printf("%s of %d tensors makes the trained model of the base: %s, and the base again: %s\n",
              patch_path.c_str(), int(stored.tensors().size()), applied ? "yes" : "no",
              reverted ? "yes" : "no");
  return reward_after > reward_before + 0.2 && moved > 0 && applied && reverted ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) try {
  return run(argc > 1 ? argv[1] : "2", argc > 2 ? argv[2] : "libtorch_grpo.safetensors");
} catch (std::exception const& error) {
  std::fprintf(stderr, "libtorch_grpo: %s\n", error.what());
  return 1;
}
