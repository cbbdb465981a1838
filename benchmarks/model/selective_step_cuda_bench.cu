// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a selection saves on a device: training on a batch (forward, GRPO's loss, backward by plan,
// AdamW with masters; bf16 weights, float activations) against full training in the same run, and
// as the operations predict it. Sequences of 1,024 tokens, of which all logits are wanted.
//
//   step         one forward, loss, backward and AdamW step
//   step+prefix  the same from a filled prefix cache: every epoch but the first
//   epochs       log-probs of a reference, then four epochs; from a prefix cache that is filled in
//                the time, but for full training
//
// Counters: `speed_up` over full training, measured; `formula` the same of operations and `ratio`
// of the two; `peak_GB` the most memory that was held at one time, and `planned_GB` the plan's.
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "benchmarks/device_bench.cuh"
#include "benchmarks/median.hpp"
#include "benchmarks/model/random_model.hpp"
#include "benchmarks/model/training.hpp"
#include "benchmarks/qwen3.hpp"
#include "examples/decoder/memory.hpp"
#include "lamina/layers/selector.hpp"

using namespace lamina;
using namespace lamina::benchmarks;
using model_bench::procedure;

namespace {

using backend_type = cuda_backend<float>;

enum class timed : std::uint8_t { step, step_from_prefix, epochs };

constexpr procedure procedure_of(timed what, bool prefix_reuse) {
  if (what != timed::epochs) return {.prefix_reuse = prefix_reuse};
  return {.epochs = 4, .reference = true, .prefix_reuse = prefix_reuse};
}

struct measured_case {
  std::string model;
  decoder::config shape;
  index_t sequences;
  std::string selection;
  backward_plan plan;
  timed what;

  std::string name() const {
    char const* const names[] = {"step", "step+prefix", "epochs"};
    return model + "/" + selection + "/" + names[static_cast<int>(what)];
  }
  bool full() const { return plan.trains_embeddings(); }
  procedure how() const { return procedure_of(what, what != timed::step && !full()); }
};

double operations(measured_case const& c, decoder::token_batch const& batch) {
  auto const of = [&](procedure const& p) {
    return static_cast<double>(
        count_flops(decoder::transformer_shape(c.shape), c.plan, step_of(batch, p)).total());
  };
  procedure const how = c.how();
  if (c.what != timed::step_from_prefix) return of(how);
  return of({.epochs = 2, .prefix_reuse = true}) - of({.prefix_reuse = true});
}

double planned_bytes(measured_case const& c, decoder::token_batch const& batch) {
  index_t const longest = sequences_at(batch.offsets).token_pairs / batch.token_count();
  auto const plan =
      plan_memory(decoder::transformer_shape(c.shape), c.plan, step_of(batch, c.how()),
                  decoder::device_activation_sizes(c.shape, longest), {.weight = 2, .gradient = 2});
  return static_cast<double>(plan.peak());
}

// The device's memory pool.
class memory_pool {
 public:
  memory_pool() {
    int device = 0;
    detail::check_cuda(cudaGetDevice(&device), "cudaGetDevice", "the current device");
    detail::check_cuda(cudaDeviceGetDefaultMemPool(&pool_, device), "cudaDeviceGetDefaultMemPool",
                       "device ", device);
  }
  // Memory that is given back stays in the pool: to take gigabytes from the system takes long.
  void keep() { set(cudaMemPoolAttrReleaseThreshold, std::numeric_limits<std::uint64_t>::max()); }
  void restart_peak() { set(cudaMemPoolAttrUsedMemHigh, 0); }
  double peak() const {
    std::uint64_t bytes = 0;
    detail::check_cuda(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemHigh, &bytes),
                       "cudaMemPoolGetAttribute", "cudaMemPoolAttrUsedMemHigh");
    return static_cast<double>(bytes);
  }

 private:
  void set(cudaMemPoolAttr attribute, std::uint64_t value) {
    detail::check_cuda(cudaMemPoolSetAttribute(pool_, attribute, &value), "cudaMemPoolSetAttribute",
                       value);
  }
  cudaMemPool_t pool_ = nullptr;
};

void measure(benchmark::State& state, measured_case const& c) {
  backend_type const backend(stream());
  auto const batch = model_bench::random_batch(c.shape, c.sequences, 1024, 1024);
  backend.synchronize();
  memory_pool pool;
  pool.keep();
  pool.restart_peak();
  decoder::transformer<backend_type, bf16> model(backend, c.shape);
  model_bench::fill_weights(model);
  model_bench::training training(model, c.plan, batch, c.how());
  auto const work = [&] { c.what == timed::epochs ? training.run() : training.step(); };
  training.fill_prefix();
  work();  // memory grows
  std::vector<double> times;
  for (auto _ : state) {
    times.push_back(seconds(work));
    state.SetIterationTime(times.back());
  }
  step_status const status = training.status();
  if (status.skipped || !(status.gradient_norm > 0)) state.SkipWithError("no gradient");

  // What full training takes; it comes first.
  static std::map<std::string, double> full_seconds;
  double const time = median(times);
  std::string const as_full = c.model + (c.what == timed::epochs ? "/epochs" : "/step");
  if (c.full()) full_seconds[as_full] = time;
  index_t const passes = c.how().epochs;
  state.counters["tokens/s"] = static_cast<double>(passes * batch.token_count()) / time;
  state.counters["peak_GB"] = pool.peak() * 1e-9;
  state.counters["planned_GB"] = planned_bytes(c, batch) * 1e-9;
  if (auto const full = full_seconds.find(as_full); full != full_seconds.end()) {
    measured_case whole = c;
    whole.plan = plan_full(c.shape.layer_count);
    if (whole.what == timed::step_from_prefix) whole.what = timed::step;
    double const speed_up = full->second / time;
    double const formula = operations(whole, batch) / operations(c, batch);
    state.counters["speed_up"] = speed_up;
    state.counters["formula"] = formula;
    state.counters["ratio"] = speed_up / formula;
  }
}

void add(std::string const& model, decoder::config const& shape, index_t sequences) {
  index_t const depth = shape.layer_count;
  auto const one = [&](index_t layer) { return plan_backward(depth, single_layer(layer)); };
  auto const middle = one(depth / 2), ten = plan_backward(depth, middle_layers(depth, 10));
  auto const measured = [&](char const* selection, backward_plan const& plan, timed what,
                            int iterations) {
    measured_case const c{model, shape, sequences, selection, plan, what};
    benchmark::RegisterBenchmark(c.name().c_str(),
                                 [c](benchmark::State& state) {
                                   try {
                                     measure(state, c);
                                   } catch (lamina::error const& refused) {  // out of memory, say
                                     state.SkipWithError(refused.what());
                                   }
                                 })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond)
        ->Iterations(iterations);
  };
  measured("full", plan_full(depth), timed::step, 4);
  measured("middle layer", middle, timed::step, 4);
  measured("middle layer", middle, timed::step_from_prefix, 4);
  measured("last layer", one(depth - 1), timed::step, 4);
  measured("middle 10", ten, timed::step, 4);
  measured("middle 10", ten, timed::step_from_prefix, 4);
  if (shape == qwen3_1_7b) return;  // seconds each
  measured("full", plan_full(depth), timed::epochs, 2);
  measured("middle layer", middle, timed::epochs, 2);
}

}  // namespace

int main(int argc, char** argv) {
  add("0.6B", qwen3_0_6b, 8);
  // 16 bytes a parameter and 3.4 MB a token in full training, and 0.9 MB for each row of logits:
  // 46 GB of an H100's 80.
  add("1.7B", qwen3_1_7b, 4);
  return run(argc, argv);
}
