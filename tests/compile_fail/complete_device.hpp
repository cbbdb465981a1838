// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A device backend that lacks nothing and does nothing.
#pragma once

#include <memory>

#include "lamina/backend/backend.hpp"

struct complete_device {
  using scalar_type = float;
  struct matrix_type {
    lamina::index_t rows, cols;
    std::unique_ptr<float[]> data;
  };
  struct bytes_type {
    std::unique_ptr<char[]> bytes;
    void* data() const { return bytes.get(); }
  };

  static lamina::matrix_view<float> view(matrix_type& m) { return {m.data.get(), m.rows, m.cols}; }
  static lamina::matrix_view<float const> view(matrix_type const& m) {
    return {m.data.get(), m.rows, m.cols};
  }
  matrix_type make_matrix(lamina::index_t rows, lamina::index_t cols) const {
    return {rows, cols, nullptr};
  }
  lamina::host_rows<> executor() const { return {}; }
  void gemm(lamina::transpose, lamina::transpose, float, lamina::matrix_view<float const>,
            lamina::matrix_view<float const>, float, lamina::matrix_view<float>) const {}
  int stream() const { return 0; }
  void synchronize() const {}
  bytes_type make_bytes(std::size_t) const { return {}; }
  void copy(void*, void const*, std::size_t) const {}
  bool reaches(void const*) const { return true; }
};
static_assert(lamina::check_device_backend<complete_device>());
