// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A host with a few tensors, and the steps PyTorch took on two of them.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "lamina/core/parameter.hpp"
#include "lamina/core/random.hpp"
#include "tests/support/reference_file.hpp"

namespace lamina::testing {

/// Owns weights and gradients; hands out views of them.
template <class T>
struct host_tensors {
  struct tensor {
    std::string name;
    index_t layer;
    bool decays;
    std::vector<T> weight, gradient;
  };
  std::deque<tensor> tensors;

  /// A tensor with weights and gradients drawn from `seed` and its position in the list.
  host_tensors& add(std::string name, index_t layer, std::size_t size, bool decays = true,
                    std::uint64_t seed = 1) {
    counter_generator random(seed, tensors.size());
    tensor made{std::move(name), layer, decays, std::vector<T>(size), std::vector<T>(size)};
    for (T& w : made.weight) w = static_cast<T>(static_cast<float>(random.uniform() - 0.5));
    for (T& g : made.gradient) g = static_cast<T>(static_cast<float>(random.uniform() - 0.5));
    tensors.push_back(std::move(made));
    return *this;
  }

  /// New gradients everywhere, a function of the seed.
  void draw_gradients(std::uint64_t seed) {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      counter_generator random(seed, i);
      for (T& g : tensors[i].gradient) {
        g = static_cast<T>(static_cast<float>(random.uniform() - 0.5));
      }
    }
  }

  std::vector<parameter_view<T>> parameters() {
    std::vector<parameter_view<T>> list;
    for (tensor& t : tensors) {
      list.push_back({.name = t.name,
                      .layer = t.layer,
                      .role = parameter_role::mlp_up,
                      .weight = t.weight,
                      .gradient = t.gradient,
                      .decays = t.decays});
    }
    return list;
  }

  std::vector<std::vector<T>> weights() const {
    std::vector<std::vector<T>> all;
    for (tensor const& t : tensors) all.push_back(t.weight);
    return all;
  }
};

/// Everything an optimizer remembers, to compare bit for bit.
template <class Optimizer>
auto state_of(Optimizer const& optimizer) {
  using scalar = typename Optimizer::scalar_type;
  auto const& state = optimizer.state();
  std::vector<std::vector<scalar>> all;
  for (index_t p = 0; p < state.size(); ++p) {
    all.push_back({static_cast<scalar>(state.step_count(p))});
    for (index_t slot = 0; slot < state.slot_count(); ++slot) {
      auto const values = state.values(p, slot);
      all.push_back(std::vector<scalar>(values.begin(), values.end()));
    }
  }
  return all;
}

/// Sizes around the ends of blocks, tiles and rows, and three rows in one tensor.
template <class T>
host_tensors<T> tensors_of_many_sizes() {
  host_tensors<T> host;
  index_t layer = 0;
  constexpr std::size_t sizes[] = {1, 7, 255, 257, 4095, 4096, 4097, 9000};
  for (std::size_t const size : sizes) {
    host.add("layers." + std::to_string(layer) + ".weight", layer, size, layer % 2 == 0);
    ++layer;
  }
  return host;
}

/// Checks every step of the cases of `rule` in optim_vectors.json. `make` builds the optimizer from
/// a backend, parameters, and the case's options and rates.
template <class T, class Make, class CheckNear>
void follow_torch(char const* rule, Make make, CheckNear check_near) {
  nlohmann::json const file = read_reference("optim_vectors.json");
  int followed = 0;
  for (nlohmann::json const& known : file["cases"]) {
    if (known["rule"] != rule) continue;
    ++followed;
    host_tensors<T> host;
    host.add("matrix", 3, 5, true).add("norm", 4, 3, false);
    for (std::size_t t = 0; t < 2; ++t) {
      for (std::size_t i = 0; i < host.tensors[t].weight.size(); ++i) {
        host.tensors[t].weight[i] = static_cast<T>(file["weights"][t][i].get<double>());
      }
    }
    auto optimizer = make(host.parameters(), known);
    for (std::size_t s = 0; s < known["steps"].size(); ++s) {
      nlohmann::json const& step = known["steps"][s];
      for (std::size_t t = 0; t < 2; ++t) {
        for (std::size_t i = 0; i < host.tensors[t].gradient.size(); ++i) {
          host.tensors[t].gradient[i] = static_cast<T>(file["gradients"][s][t][i].get<double>());
        }
      }
      auto const status = optimizer.step(step["learning_rate"].get<double>());
      std::string const where = known["name"].get<std::string>() + ", step " + std::to_string(s);
      check_near(status.gradient_norm, step["gradient_norm"].get<double>(), where);
      for (std::size_t t = 0; t < 2; ++t) {
        for (std::size_t i = 0; i < host.tensors[t].weight.size(); ++i) {
          check_near(static_cast<double>(host.tensors[t].weight[i]),
                     step["weights"][t][i].get<double>(), where);
        }
      }
    }
    auto const& state = optimizer.state();
    check_near(static_cast<double>(state.slot_count()),
               static_cast<double>(known["moments"].size()), "slots");
    for (index_t slot = 0; slot < state.slot_count(); ++slot) {
      for (index_t t = 0; t < 2; ++t) {
        auto const values = state.values(t, slot);
        for (index_t i = 0; i < values.size; ++i) {
          check_near(static_cast<double>(values[i]),
                     known["moments"][static_cast<std::size_t>(slot)][static_cast<std::size_t>(t)]
                          [static_cast<std::size_t>(i)]
                              .template get<double>(),
                     known["name"].get<std::string>() + ", moment");
        }
      }
    }
  }
  check_near(followed, 4 + (std::string(rule) == "sgd" ? 2 : 0), "number of cases");
}

}  // namespace lamina::testing
