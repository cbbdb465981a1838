// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The hidden form of GRPO on a device, bf16, beside its matrix products alone, taken in the same
// iterations. Counters: `over_products` is the time of the loss as a multiple of that of its
// products in chunks of the same size, `TFLOP/s` counts the products only, `scratch_MB` the memory.
#include <vector>

#include "benchmarks/device_bench.cuh"
#include "lamina/policy/device_hidden_loss.hpp"
#include "lamina/policy/presets.hpp"

using namespace lamina;
using lamina::benchmarks::fill_body;
using lamina::benchmarks::seconds;
using lamina::benchmarks::stream;

namespace {

using backend_type = cuda_backend<float>;

template <bool Trained, class Logits = wide_logits>
void hidden_to_gradients(benchmark::State& state) {
  index_t const tokens = state.range(0), vocab = state.range(1), width = state.range(2);
  index_t const length = 1024;
  backend_type const backend(stream());
  device_vector<backend_type, bf16> hidden(backend, tokens * width),
      d_hidden(backend, tokens * width), head(backend, vocab * width);
  device_vector<backend_type, float> d_head(backend, Trained ? vocab * width : 0);
  matrix_view<bf16> const states(hidden.view().data, tokens, width);
  matrix_view<bf16> const gradients(d_hidden.view().data, tokens, width);
  matrix_view<bf16> const weights(head.view().data, vocab, width);
  backend.executor().run(tokens, fill_body<bf16>{states, 1.0f});
  backend.executor().run(vocab, fill_body<bf16>{weights, 0.05f});

  std::vector<index_t> starts;
  for (index_t t = 0; t <= tokens; t += length) starts.push_back(t);
  std::vector<std::int32_t> ids;
  for (index_t t = 0; t < tokens; ++t) ids.push_back(static_cast<std::int32_t>(t * 31 % vocab));
  std::vector<float> advantages;
  for (index_t s = 0; s < tokens / length; ++s) advantages.push_back(s % 2 == 0 ? 1.0f : -1.0f);
  device_vector<backend_type, index_t> const offsets(backend, vector_view<index_t const>(starts));
  device_vector<backend_type, std::int32_t> const token_ids(backend,
                                                            vector_view<std::int32_t const>(ids));
  device_vector<backend_type, float> const signs(backend, vector_view<float const>(advantages));
  device_vector<backend_type, float> old_log_probs(backend, tokens), log_probs(backend, tokens),
      d_log_probs(backend, tokens);
  policy_batch<float> batch;
  batch.offsets = offsets.view();
  batch.token_ids = token_ids.view();
  batch.old_log_probs = old_log_probs.view();
  batch.advantages = signs.view();
  batch.denominators = {.sequences = tokens / length, .tokens = tokens};
  policy_outputs<float> const outputs{.log_probs = log_probs.view(),
                                      .d_log_probs = d_log_probs.view()};
  policy_report report(backend, tokens / length);

  hidden_states<bf16> const both{states, gradients};
  auto const the_head = [&] {
    if constexpr (Trained) {
      return trained_head<bf16>{weights, {d_head.view().data, vocab, width}};
    } else {
      return frozen_head<bf16>{weights};
    }
  }();
  device_vector<backend_type, float> scratch(
      backend,
      device_hidden_scratch_size(backend, both, the_head, default_device_hidden_budget, Logits{}));
  using layout_type = detail::device_hidden_layout<backend_type, bf16, decltype(the_head), Logits>;
  using logit = typename layout_type::logit;
  layout_type const layout(both, the_head);
  index_t const rows = detail::even_chunk(tokens, layout.rows_in(scratch.size()));
  auto const products = [&] {
    for (index_t begin = 0; begin < tokens; begin += rows) {
      index_t const count = tokens - begin < rows ? tokens - begin : rows;
      matrix_view<bf16 const> const some = states.row_block(begin, count);
      matrix_view<bf16 const> const narrow(
          reinterpret_cast<bf16 const*>(scratch.view().data), count, vocab,
          static_cast<index_t>(sizeof(logit) / sizeof(bf16)) * layout.vocab_stride());
      backend.gemm<bf16, logit>(
          transpose::no, transpose::yes, 1, some, weights, 0,
          {reinterpret_cast<logit*>(scratch.view().data), count, vocab, layout.vocab_stride()});
      if constexpr (Trained) {
        backend.gemm<bf16, float>(transpose::yes, transpose::no, 1, narrow, some, 1,
                                  the_head.d_weights);
      }
      backend.gemm<bf16, bf16>(transpose::no, transpose::no, 1, narrow, weights, 0,
                               gradients.row_block(begin, count));
    }
  };
  // A first update: no token is clipped, every row gets a gradient.
  policy_loss(backend, grpo{}, both, the_head, batch, outputs, scratch.view(), report, Logits{});
  backend.copy(old_log_probs.view().data, log_probs.view().data,
               static_cast<std::size_t>(tokens) * sizeof(float));
  backend.synchronize();
  double alone = 0, total = 0;
  for (auto _ : state) {
    alone += seconds(products);
    double const own = seconds([&] {
      policy_loss(backend, grpo{}, both, the_head, batch, outputs, scratch.view(), report,
                  Logits{});
    });
    state.SetIterationTime(own);
    total += own;
  }
  double const flop = (Trained ? 6.0 : 4.0) * static_cast<double>(tokens) *
                      static_cast<double>(vocab) * static_cast<double>(width);
  state.counters["over_products"] = total / alone;
  state.counters["TFLOP/s"] = flop * static_cast<double>(state.iterations()) / total / 1e12;
  state.counters["scratch_MB"] = static_cast<double>(scratch.size()) * 4e-6;
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"tokens", "vocab", "width"})->UseManualTime()->Unit(benchmark::kMillisecond);
  for (int const width : {2048, 2560, 4096}) b->Args({8192, 151936, width});
}
BENCHMARK_TEMPLATE(hidden_to_gradients, false)->Apply(shapes);
BENCHMARK_TEMPLATE(hidden_to_gradients, true)->Apply(shapes);
BENCHMARK_TEMPLATE(hidden_to_gradients, false, narrow_logits)->Apply(shapes);
BENCHMARK_TEMPLATE(hidden_to_gradients, true, narrow_logits)->Apply(shapes);

}  // namespace

int main(int argc, char** argv) { return lamina::benchmarks::run(argc, argv); }
