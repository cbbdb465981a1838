// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An engine without exceptions and RTTI, with its own memory and threads, trains one layer by GRPO.
// Fails unless the reward rises, no step allocates, every other weight has the bits it had, and the
// patch of the layer leads from base to trained model and back.
//
//   no_exceptions [patch file [mistake]]   a mistake ends a short training and says where it was
//                                          found: selection, token, missing, truncated, other_base
#include "examples/no_exceptions/adopt.hpp"
#include "examples/no_exceptions/heap.hpp"

namespace {

engine::runtime host{engine::arena(std::size_t{64} << 20), engine::thread_pool(2)};

// The training that a failing call must leave as it was, and what it was.
engine::layer_grpo* watched = nullptr;
std::uint64_t fingerprint_before = 0;

// Of all weights and of the optimizer's state.
std::uint64_t fingerprint() {
  lamina::weight_fingerprint result;
  for (auto const& parameter : lamina::all_parameters(*watched->m)) {
    result.add(lamina::vector_view<float const>(parameter.weight));
  }
  auto const& state = watched->optimizer.state();
  for (long p = 0; p < state.size(); ++p) {
    for (long slot = 0; slot < state.slot_count(); ++slot) result.add(state.values(p, slot));
  }
  return result.value();
}

}  // namespace

// [adopt]
// Where lamina's errors arrive: the build says -DLAMINA_ERROR_HANDLER=engine_error.
void engine_error(char const* kind, char const* message) {
  std::printf("%s: %s\n", kind, message);
  if (watched != nullptr) {
    std::printf("weights and optimizer state are %s\n",
                fingerprint() == fingerprint_before ? "as they were" : "changed");
  }
  std::exit(2);
}
// [/adopt]

namespace {

constexpr engine::shape shape{
    .vocab = engine::symbol_count, .tokens = engine::prompt_tokens, .layers = 4, .width = 24};
constexpr long layer = 2, group = 8, episode_count = 128;

float mean_reward(engine::model* m, engine::episodes* e, unsigned long* random) {
  float sum = 0;
  for (int i = 0; i < 8; ++i) {
    engine::ask(e, 1, random);
    sum += engine::answer(m, e, random);
  }
  return sum / 8;
}

bool same(engine::matrix const& a, engine::matrix const& b) {
  return std::memcmp(a.data, b.data, static_cast<std::size_t>(a.size()) * sizeof(float)) == 0;
}

// Whether every tensor of the layer differs, and no bit outside it.
bool differ_only_in(long changed_layer, engine::model const& a, engine::model const& b) {
  bool result = same(a.embedding.weight, b.embedding.weight) &&
                same(a.positions.weight, b.positions.weight) &&
                same(a.final_norm.weight, b.final_norm.weight) &&
                same(a.head.weight, b.head.weight);
  for (long l = 0; l < shape.layers; ++l) {
    for (int t = 0; t < engine::layer_tensor_count; ++t) {
      bool const differs = !same(a.layers[l].tensors[t].weight, b.layers[l].tensors[t].weight);
      result = result && differs == (l == changed_layer);
    }
  }
  return result;
}
constexpr long no_layer = -1;

// Makes a mistake of that name, which ends in engine_error.
void make_mistake(std::string const& name, engine::layer_grpo& grpo, engine::episodes& e,
                  std::string const& path) {
  if (name == "truncated") {
    std::string const bytes = lamina::read_file(path);
    lamina::write_file_atomically(path, bytes.substr(0, bytes.size() / 2));
  }
  if (name == "token") e.answers[3] = engine::symbol_count;
  watched = &grpo;
  fingerprint_before = fingerprint();
  if (name == "selection") {
    lamina::plan_backward(shape.layers, lamina::single_layer(shape.layers));
  } else if (name == "token") {
    grpo.step(e);
  } else if (name == "missing") {
    lamina::safetensors_file("no_such_directory/patch.safetensors");
  } else if (name == "truncated") {
    lamina::layer_patch<float>{lamina::safetensors_file(path)};
  } else if (name == "other_base") {  // the trained model is not the base of its own patch
    lamina::layer_patch<float> patch{lamina::safetensors_file(path)};
    patch.apply(lamina::all_parameters(*grpo.m));
  }
  engine::fatal("the mistake was not found");
}

}  // namespace

int main(int argument_count, char** arguments) {
  std::string const path = argument_count > 1 ? arguments[1] : "no_exceptions_layer.safetensors";
  bool const is_short = argument_count > 2;
  unsigned long random = 11;
  engine::model model = engine::make_model(&host, shape, 7);
  engine::pretrain(&model, is_short ? 2 : 200, 64, 0.1f, &random);
  engine::model const base = engine::copy_of(model);
  engine::episodes e = engine::make_episodes(&host, episode_count);

  // [adopt]
  engine::layer_grpo grpo(&model, lamina::single_layer(layer), episode_count, group, 0.005);
  // [/adopt]
  float const before = mean_reward(&model, &e, &random);
  std::size_t const arena_before = host.memory.used();
  long const heap_before = engine::heap_allocation_count();
  for (int i = 0; i < (is_short ? 2 : 80); ++i) {
    engine::ask(&e, group, &random);
    engine::answer(&model, &e, &random);
    // [adopt]
    grpo.step(e), grpo.step(e);  // two epochs
    // [/adopt]
  }
  long const heap_calls = engine::heap_allocation_count() - heap_before;
  bool const in_place = heap_calls == 0 && host.memory.used() == arena_before;
  float const after = mean_reward(&model, &e, &random);
  bool const frozen = differ_only_in(layer, model, base);
  std::printf("mean reward %.2f -> %.2f, frozen weights bit-identical: %s\n", before, after,
              frozen ? "yes" : "no");
  std::printf("in the steps: %ld heap allocations, %ld bytes of the arena\n", heap_calls,
              static_cast<long>(host.memory.used() - arena_before));

  // [adopt]
  lamina::layer_patch<float>(grpo.base, lamina::all_parameters(model)).save(path);
  // [/adopt]
  if (is_short) make_mistake(arguments[2], grpo, e, path);
  engine::model patched = engine::copy_of(base);
  // [adopt]
  lamina::layer_patch<float> patch{lamina::safetensors_file(path)};
  patch.apply(lamina::all_parameters(patched));
  // [/adopt]
  engine::reserve(&patched, episode_count, shape.layers);
  engine::forward_logits(&model, e.prompts);
  engine::forward_logits(&patched, e.prompts);
  bool const applied = same(model.logits, patched.logits);
  patch.revert(lamina::all_parameters(patched));
  bool const reverted = differ_only_in(no_layer, patched, base);
  std::printf("patch of %ld tensors: applied %s, reverted %s\n",
              static_cast<long>(patch.tensors().size()), applied ? "exactly" : "wrongly",
              reverted ? "exactly" : "wrongly");
  return in_place && frozen && applied && reverted && after > before + 0.25f ? 0 : 1;
}
