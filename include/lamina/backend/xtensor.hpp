// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The xtensor backend: row-major xtensor storage, rows and panels of products through a
// parallel_for hook, a chosen GEMM; and what xtensor holds as views.
#pragma once

// Where xtensor keeps its containers differs by version.
#if __has_include(<xtensor/containers/xtensor.hpp>)
#include <xtensor/containers/xtensor.hpp>
#else
#include <xtensor/xtensor.hpp>
#endif

#include "lamina/backend/backend.hpp"
#include "lamina/backend/foreign.hpp"
#include "lamina/backend/gemm_plain.hpp"

LAMINA_NAMESPACE_BEGIN

/// Host backend over xtensor storage.
///
/// ParallelFor  how rows and panels of products are spread over threads; serial by default
/// Gemm         the matrix product, which xtensor has none of; plain_gemm needs nothing, cblas_gemm
///              and onednn_gemm are faster
template <real T = float, parallel_for ParallelFor = serial_for, pointer_gemm<T> Gemm = plain_gemm>
struct xtensor_backend {
  using scalar_type = T;
  using matrix_type = xt::xtensor<T, 2, xt::layout_type::row_major>;

  ParallelFor parallel{};
  Gemm product{};

  /// Zeroed storage [rows, cols].
  matrix_type make_matrix(index_t rows, index_t cols) const {
    using shape_type = typename matrix_type::shape_type;
    matrix_type matrix(shape_type{static_cast<std::size_t>(rows), static_cast<std::size_t>(cols)},
                       T(0));
    return matrix;
  }

  static matrix_view<T> view(matrix_type& m) noexcept {
    return {m.data(), static_cast<index_t>(m.shape(0)), static_cast<index_t>(m.shape(1))};
  }
  static matrix_view<T const> view(matrix_type const& m) noexcept {
    return {m.data(), static_cast<index_t>(m.shape(0)), static_cast<index_t>(m.shape(1))};
  }

  host_rows<ParallelFor> executor() const { return {parallel, 1}; }

  /// c = alpha op(a) op(b) + beta c. Throws shape_error if the shapes do not fit.
  void gemm(transpose ta, transpose tb, T alpha, matrix_view<T const> a, matrix_view<T const> b,
            T beta, matrix_view<T> c) const {
    gemm_in_panels(parallel, product, make_gemm_arguments<T>(ta, tb, alpha, a, b, beta, c));
  }
};

/// Containers, adaptors and strided views of xtensor: whatever has memory and strides.
template <class X>
requires std::derived_from<X, xt::xexpression<X>>
struct tensor_traits<X> {
  static_assert(xt::has_data_interface<X const>::value && xt::has_strides<X const>::value,
                "lamina: an xtensor expression has no memory; evaluate it into a container first");

  static auto data(auto& x) { return x.data() + x.data_offset(); }
  static index_t rank(X const& x) { return static_cast<index_t>(x.dimension()); }
  static index_t extent(X const& x, index_t axis) {
    return static_cast<index_t>(x.shape()[static_cast<std::size_t>(axis)]);
  }
  static index_t stride(X const& x, index_t axis) {
    return static_cast<index_t>(x.strides()[static_cast<std::size_t>(axis)]);
  }
};

static_assert(check_backend<xtensor_backend<float>>());
static_assert(check_backend<xtensor_backend<double>>());

LAMINA_NAMESPACE_END
