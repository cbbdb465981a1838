// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Where the time of a forward pass goes, and how near it comes to the multiply-adds the processor
// can do: a model of the shape of SmolLM2-135M, one thread.
//
// peak_share  operations of the pass / time, of the multiply-add peak measured beside it
// of_forward  time of a part / time of the whole pass measured beside it
#include <benchmark/benchmark.h>

#include <string>

#include "benchmarks/model/smollm2.hpp"

namespace {

using namespace model_bench;
using decoder::layer_tensor;
using decoder::outer_tensor;
using lamina::matrix_view;
using lamina::transpose;
using lamina::vector_view;

/// The pieces of a forward pass of the training step, each over all layers.
class parts {
 public:
  explicit parts(decoder::token_batch const& batch)
      : model_({}, smollm2),
        batch_(batch),
        rotary_(model_.backend()),
        working_(model_.backend()),
        kept_(model_.backend()),
        scratch_memory_(model_.backend()) {
    fill_weights(model_);
    backend_type const& backend = model_.backend();
    index_t longest = 0;
    for (std::size_t s = 0; s + 1 < batch_.offsets.size(); ++s) {
      for (index_t p = batch_.offsets[s]; p < batch_.offsets[s + 1]; ++p) {
        positions_.push_back(p - batch_.offsets[s]);
      }
      longest = std::max(longest, batch_.offsets[s + 1] - batch_.offsets[s]);
    }
    index_t const rows = static_cast<index_t>(batch_.logit_rows.size());
    rotary_.cover(backend, smollm2, longest);
    activations_ = decoder::layer_activations<float>::lay_out(backend, working_, smollm2,
                                                              batch_.token_count());
    kept_.reset(backend,
                batch_.token_count() * smollm2.width + rows * (smollm2.width + smollm2.vocab));
    stream_ = kept_.take(batch_.token_count(), smollm2.width);
    hidden_ = kept_.take(rows, smollm2.width);
    logits_ = kept_.take(rows, smollm2.vocab);
    std::fill(stream_.data, stream_.data + stream_.rows * stream_.cols, 0.1f);
    std::fill(hidden_.data, hidden_.data + hidden_.rows * hidden_.cols, 0.1f);
    index_t const size = decoder::attention<float>::scratch_size(smollm2, longest);
    scratch_memory_.reset(backend, decoder::attention_worker_count * size);
    scratch_ = scratch_memory_.take(decoder::attention_worker_count, size);
  }

  void whole() { benchmark::DoNotOptimize(model_.forward(batch_).data); }

  void products() {
    each_layer([&](auto const& weights) {
      auto const& a = activations_;
      project(a.attention_input, weights.stacked(layer_tensor::query, layer_tensor::value), 0,
              a.qkv);
      project(a.mixed, weights.weight(layer_tensor::attention_output), 1, stream_);
      project(a.mlp_input, weights.stacked(layer_tensor::gate, layer_tensor::up), 0, a.gate_up);
      project(a.activated, weights.weight(layer_tensor::down), 1, stream_);
    });
  }
  void head() { project(hidden_, model_.head(), 0, logits_); }
  void norms() {
    each_layer([&](auto const& weights) {
      run().normalize(stream_, weights.vector(layer_tensor::attention_norm),
                      activations_.attention_input, {}, {});
      run().normalize(stream_, weights.vector(layer_tensor::mlp_norm), activations_.mlp_input, {},
                      {});
    });
  }
  void rotation() {
    each_layer([&](auto const& weights) {
      auto const& a = activations_;
      run().each_token(decoder::rotate_heads<float>{
          smollm2, a.qkv, positions_, rotary_.cosine(), rotary_.sine(),
          weights.stacked_vector(layer_tensor::query_bias, layer_tensor::value_bias),
          weights.vector(layer_tensor::query_norm), weights.vector(layer_tensor::key_norm), a.heads,
          a.head_inverse_rms});
    });
  }
  void attention() {
    each_layer([&](auto const&) {
      model_.backend().executor().run(
          decoder::attention_worker_count,
          decoder::attention<float>{
              {&smollm2, batch_.offsets}, activations_.qkv, activations_.mixed, {}, scratch_});
    });
  }
  void swiglu() {
    each_layer([&](auto const&) {
      run().each_token(decoder::swiglu<float>{activations_.gate_up, activations_.activated});
    });
  }

 private:
  decoder::forward_pass<backend_type> run() {
    return {model_.backend(), smollm2, rotary_, positions_, wide_, {}};
  }
  void project(matrix_view<float const> x, matrix_view<float const> w, float beta,
               matrix_view<float> y) const {
    model_.backend().gemm(transpose::no, transpose::yes, 1.0f, x, w, beta, y);
  }
  template <class F>
  void each_layer(F const& f) {
    for (index_t layer = 0; layer < smollm2.layer_count; ++layer) f(model_.block(layer));
    // Residual streams grow without norms between the sums; keep numbers ordinary.
    std::fill(stream_.data, stream_.data + stream_.rows * stream_.cols, 0.1f);
    benchmark::ClobberMemory();
  }

  model_type model_;
  decoder::token_batch batch_;
  std::vector<index_t> positions_;
  decoder::rotary_cache<backend_type> rotary_;
  decoder::arena<backend_type> working_, kept_, scratch_memory_;
  decoder::widening<backend_type> wide_{model_.backend()};
  decoder::layer_activations<float> activations_;
  matrix_view<float> stream_, hidden_, logits_, scratch_;
};

struct part {
  char const* name;
  void (parts::*run)();
};

void forward(benchmark::State& state, part const& measured, index_t sequences, index_t length) {
  auto const batch = random_batch(smollm2, sequences, length, length / 2);
  parts model(batch);
  model.whole();  // memory is allocated by the first pass
  (model.*measured.run)();
  std::vector<double> times, whole_times, peaks;
  for ([[maybe_unused]] auto iteration : state) {
    peaks.push_back(fma_peak());
    whole_times.push_back(seconds_of([&] { model.whole(); }));
    times.push_back(seconds_of([&] { (model.*measured.run)(); }));
    state.SetIterationTime(times.back());
  }
  if (measured.run == &parts::whole) {
    auto const flops = lamina::count_flops(
        decoder::transformer_shape(smollm2), lamina::plan_full(smollm2.layer_count),
        {.sequences = lamina::sequences_at(batch.offsets),
         .logit_rows = static_cast<index_t>(batch.logit_rows.size())});
    times.insert(times.end(), whole_times.begin(), whole_times.end());
    double const rate = static_cast<double>(flops.forward) / median(times);
    state.counters["GFLOP/s"] = rate * 1e-9;
    state.counters["peak_GFLOP/s"] = median(peaks) * 1e-9;
    state.counters["peak_share"] = rate / median(peaks);
  } else {
    state.counters["of_forward"] = median(times) / median(whole_times);
  }
}

}  // namespace

int main(int argc, char** argv) {
  choose_threads();
  part const measured[] = {{"whole", &parts::whole},       {"layer_products", &parts::products},
                           {"head_product", &parts::head}, {"attention", &parts::attention},
                           {"norms", &parts::norms},       {"rotation", &parts::rotation},
                           {"swiglu", &parts::swiglu}};
  for (index_t const sequences : {2, 4}) {
    for (part const& p : measured) {
      std::string const name = "forward/" + std::to_string(sequences) + "x256/" + p.name;
      benchmark::RegisterBenchmark(name.c_str(), forward, p, sequences, index_t{256})
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond)
          ->Iterations(3);
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
