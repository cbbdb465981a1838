// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The steps PyTorch took on two tensors.
#pragma once

#include "tests/optim/tensors.hpp"
#include "tests/support/reference_file.hpp"

namespace lamina::testing {

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
