// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Prefix caches, references, fingerprints, audits and patches of a model whose weights lie in a
// device's memory, against the same model on the host.
#include <doctest/doctest.h>

#include <stdexcept>

#include "lamina/backend/host_copy.hpp"
#include "lamina/io/layer_patch.hpp"
#include "lamina/layers/selector.hpp"
#include "lamina/model/prefix_cache.hpp"
#include "lamina/model/reference.hpp"
#include "lamina/optim/audit.hpp"
#include "tests/support/device_model.hpp"
#include "tests/support/minimal_model.hpp"
#include "tests/support/simulated_device.hpp"
#include "tests/support/temporary_directory.hpp"

using namespace lamina;
using namespace lamina::testing;

namespace {

index_t const vocab = 6, layers = 5;
std::vector<std::int32_t> const tokens{1, 4, 0, 3, 3};

template <class Backend>
struct twins {
  using T = typename Backend::scalar_type;
  Backend backend;
  minimal_prefix_model<T> host{layers, vocab};
  device_model<Backend, T> model{backend, host, vocab};
  device_vector<Backend, std::int32_t> ids{backend, vector_view<std::int32_t const>(tokens)};

  vector_view<std::int32_t const> batch() const { return ids.view(); }
  std::vector<T> values(matrix_view<T const> m) const {
    std::vector<T> result(static_cast<std::size_t>(m.rows * m.cols));
    backend.copy(result.data(), m.data, result.size() * sizeof(T));
    backend.synchronize();
    return result;
  }
  static std::vector<T> host_values(matrix_view<T const> m) {
    return {m.data, m.data + m.rows * m.cols};
  }
  // What training does to a layer, roughly.
  void move_layer(index_t layer) {
    auto const weight = host.parameters(layer)[0].weight;
    for (T& w : weight) w += T(0.25);
    copy_elements(backend, weight, model.parameters(layer)[0].weight);
    backend.synchronize();
  }
  std::vector<T> weights(index_t layer) {
    host_copy<Backend, T> const copy(backend, model.parameters(layer));
    return {copy.parameters()[0].weight.begin(), copy.parameters()[0].weight.end()};
  }
};

}  // namespace

#define LAMINA_TEST_DEVICES                                                      \
  simulated_device<float>, simulated_device<double>, simulated_device<float, 7>, \
      simulated_device<float, 33>

TEST_CASE_TEMPLATE("prefix cache on a device: the logits of the whole model, nothing waits",
                   Backend, LAMINA_TEST_DEVICES) {
  using T = typename Backend::scalar_type;
  twins<Backend> run;
  auto const plan = plan_backward(layers, single_layer(3));
  prefix_cache cache(run.model, plan, in_device_memory(run.backend));
  auto& stream = run.backend.stream();
  run.backend.synchronize();
  cache.append(run.model, run.batch());
  auto const prefix = cache.append(run.model, run.batch());
  CHECK(cache.row_count() == 10);
  auto const logits = prefix.forward(run.model, run.batch(), plan);
  CHECK(stream.pending() > 0);  // asked for, and not done
  CHECK(run.values(logits) == run.host_values(run.host.forward(tokens, plan)));

  std::vector<row_range> const ranges{{3, 2}, {0, 1}};
  auto const some = cache.rows().select({5, 5}).select(ranges);
  auto const expected = run.host_values(run.host.forward_prefix(tokens, 3));
  auto const found = run.values(some.stream(run.model));
  REQUIRE(found.size() == 3 * static_cast<std::size_t>(vocab));
  for (std::size_t v = 0; v < 6; ++v) {
    CHECK(found[v] == expected[3 * 6 + v]);
    CHECK(found[6 + v] == expected[4 * 6 + v]);
    CHECK(found[12 + v] == expected[v]);
  }

  prefix_cache narrow(run.model, plan, in_device_memory<Backend, bf16>(run.backend));
  auto const rounded = run.values(narrow.fill(run.model, run.batch()).stream(run.model));
  for (std::size_t i = 0; i < rounded.size(); ++i) {
    CHECK(rounded[i] == static_cast<T>(static_cast<float>(bf16(static_cast<float>(expected[i])))));
  }
}

TEST_CASE("prefix cache on a device: weights that change below are found by either guard") {
  twins<simulated_device<float>> run;
  auto const plan = plan_backward(layers, single_layer(3));
  run.model.versions.assign(layers + 1, 1);
  prefix_cache counted(run.model, plan, in_device_memory(run.backend));
  prefix_cache read(run.model, plan, in_device_memory(run.backend),
                    device_fingerprint_guard(run.backend));
  auto const a = counted.fill(run.model, run.batch());
  auto const b = read.fill(run.model, run.batch());
  run.move_layer(3);
  run.model.versions[4] = 2;
  a.stream(run.model);
  b.stream(run.model);
  run.move_layer(2);
  CHECK_THROWS_AS(b.stream(run.model), config_error);
  run.model.versions[3] = 2;
  CHECK_THROWS_AS(a.stream(run.model), config_error);
}

TEST_CASE("prefix cache on a device: where memory ends, what it holds stays good") {
  twins<simulated_device<float>> run;
  auto const plan = plan_backward(layers, single_layer(3));
  prefix_cache cache(run.model, plan, in_device_memory(run.backend));
  auto const prefix = cache.fill(run.model, run.batch());
  auto const expected = run.values(prefix.stream(run.model));
  run.backend.synchronize();
  run.backend.stream().set_limit(run.backend.stream().allocated() + 7 * 4096);
  for (int i = 0; i < 300; ++i) {
    try {
      cache.append(run.model, run.batch());
    } catch (std::runtime_error const&) {
      break;
    }
    run.backend.synchronize();
  }
  CHECK(cache.row_count() < 1500);
  CHECK(run.values(prefix.stream(run.model)) == expected);
}

TEST_CASE_TEMPLATE("reference on a device: the model is the reference inside, and nothing waits",
                   Backend, LAMINA_TEST_DEVICES) {
  twins<Backend> run;
  minimal_prefix_model<typename Backend::scalar_type> untouched(layers, vocab);
  auto const plan = plan_backward(layers, layer_set{}.insert(2).insert(4));
  frozen_copy reference(run.backend, run.model, plan);
  CHECK(reference.element_count() == 2 * vocab);
  run.move_layer(2);
  run.move_layer(4);
  auto const policy = run.weights(2);
  auto const expected = run.host_values(untouched.forward(tokens, plan));
  CHECK(run.values(run.model.forward(run.batch(), plan)) != expected);
  std::size_t const allocated = run.backend.stream().allocated();
  auto const logits =
      reference.with(run.model, [&] { return run.model.forward(run.batch(), plan); });
  CHECK(run.backend.stream().pending() > 0);
  CHECK(run.values(logits) == expected);
  CHECK(run.weights(2) == policy);
  CHECK(run.backend.stream().allocated() <= allocated + 64 * 4096);
  CHECK_THROWS_AS(reference.with(run.model, [] { throw std::runtime_error("inside"); }),
                  std::runtime_error);
  CHECK(run.weights(2) == policy);
  reference.check(run.model);
  reference.refresh(run.model);
  reference.with(run.model, [&] { CHECK(run.weights(2) == policy); });
}

TEST_CASE("reference on a device: what is trained without having been copied is found") {
  twins<simulated_device<float>> run;
  frozen_copy reference(run.backend, run.model, plan_backward(layers, single_layer(1)));
  run.move_layer(1);
  reference.extend(run.model, plan_backward(layers, single_layer(3)));
  run.move_layer(3);
  reference.check(run.model);
  run.move_layer(0);
  CHECK_THROWS_WITH_AS(reference.check(run.model),
                       "frozen_copy::check: layers.0.weight has changed since the copy was made, "
                       "and was not copied",
                       config_error);
  CHECK_THROWS_AS(reference.extend(run.model, plan_backward(layers, single_layer(0))),
                  config_error);
  CHECK(reference.element_count() == 2 * vocab);
}

TEST_CASE_TEMPLATE("fingerprint on a device: every changed bit, place and order; any lanes", T,
                   float, double, bf16) {
  auto const print = [](auto backend, std::vector<T> const& values, index_t cut) {
    device_vector<decltype(backend), T> on_device(backend, vector_view<T const>(values));
    device_fingerprint fingerprint(backend);
    auto const view = std::as_const(on_device).view();
    fingerprint.add(view.subview(0, cut));
    fingerprint.add(view.subview(cut, view.size - cut));
    std::uint64_t const first = fingerprint.value();
    fingerprint.clear();
    fingerprint.add(view.subview(0, cut));
    fingerprint.add(view.subview(cut, view.size - cut));
    CHECK(fingerprint.value() == first);
    return first;
  };
  simulated_device<float> const one;
  std::vector<T> values(9001);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<T>(static_cast<float>(i % 13) - 6.0f);
  }
  std::uint64_t const expected = print(one, values, 5000);
  CHECK(print(simulated_device<float, 7>{}, values, 5000) == expected);
  CHECK(print(simulated_device<float, 33>{}, values, 5000) == expected);
  CHECK(print(one, values, 5001) != expected);
  for (std::size_t const i : {std::size_t{0}, std::size_t{4096}, std::size_t{9000}}) {
    auto changed = values;
    changed[i] = static_cast<T>(100.0f);
    CHECK(print(one, changed, 5000) != expected);
  }
  auto swapped = values;
  std::swap(swapped[10], swapped[20]);
  CHECK(print(one, swapped, 5000) != expected);
  values[6] = static_cast<T>(-0.0f);  // was 0
  CHECK(print(one, values, 5000) != expected);
}

TEST_CASE("host_copy: a model on a device is audited, patched and reverted") {
  twins<simulated_device<float>> run;
  auto const plan = plan_backward(layers, single_layer(2));
  host_copy copy(run.backend, all_parameters(run.model));
  weight_snapshot const before(copy.parameters());
  model_hash const base(copy.parameters());
  run.move_layer(2);
  copy.refresh();
  CHECK(audit(before, copy.parameters(), plan).passed());
  layer_patch const patch(base, copy.parameters(), {.selection = "2", .step_count = 1});
  temporary_directory const folder;
  patch.save(folder / "patch.safetensors");
  auto const trained = run.weights(2);

  twins<simulated_device<float>> other;
  host_copy weights(other.backend, all_parameters(other.model));
  layer_patch<float> loaded(safetensors_file(folder / "patch.safetensors"));
  loaded.apply(weights.parameters());
  weights.write_back();
  CHECK(other.weights(2) == trained);
  loaded.revert(weights.parameters());
  weights.write_back();
  CHECK(other.weights(2) != trained);
  CHECK(model_hash(host_copy(other.backend, all_parameters(other.model)).parameters()).value() ==
        base.value());
}
