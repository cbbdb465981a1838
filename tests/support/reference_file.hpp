// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Reads a vector file of tests/reference.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

namespace lamina::testing {

inline nlohmann::json read_reference(std::string const& name) {
  std::ifstream file(std::string(LAMINA_TEST_REFERENCE_DIR) + "/" + name);
  if (!file) throw std::runtime_error("tests/reference/" + name + " cannot be opened");
  return nlohmann::json::parse(file);
}

}  // namespace lamina::testing
