// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a tensor backend is: a scalar, storage, views of it, something that works rows, a GEMM.
#pragma once

#include <concepts>
#include <type_traits>

#include "lamina/core/lanes.hpp"
#include "lamina/core/scalar.hpp"
#include "lamina/core/view.hpp"

LAMINA_NAMESPACE_BEGIN

/// Whether a GEMM operand is used as it lies or transposed.
enum class transpose : bool { no = false, yes = true };

/// B::scalar_type is the type the backend computes in.
template <class B>
concept has_scalar = real<typename B::scalar_type>;

/// backend.make_matrix(rows, cols) gives zeroed storage of type B::matrix_type.
template <class B>
concept has_storage = has_scalar<B> && std::movable<typename B::matrix_type> &&
    requires(B const& backend, index_t n) {
  { backend.make_matrix(n, n) } -> std::same_as<typename B::matrix_type>;
};

/// B::view(matrix) is a matrix_view of its elements, const for a const matrix.
template <class B>
concept has_views = has_storage<B> &&
    requires(typename B::matrix_type& m, typename B::matrix_type const& cm) {
  { B::view(m) } -> std::same_as<matrix_view<typename B::scalar_type>>;
  { B::view(cm) } -> std::same_as<matrix_view<typename B::scalar_type const>>;
};

/// backend.executor() runs row bodies.
template <class B>
concept has_executor = requires(B const& backend) {
  { backend.executor() } -> row_executor;
};

/// backend.gemm(ta, tb, alpha, a, b, beta, c) computes c = alpha op(a) op(b) + beta c, row-major;
/// with beta 0, c is written without being read.
template <class B>
concept has_gemm = has_scalar<B> &&
    requires(B const& backend, matrix_view<typename B::scalar_type const> in,
             matrix_view<typename B::scalar_type> out, typename B::scalar_type s) {
  backend.gemm(transpose::no, transpose::no, s, in, in, s, out);
};

/// A backend whose memory the host can touch. Backends are passed as objects: a device backend
/// carries its stream, a host backend its parallel_for hook.
template <class B>
concept tensor_backend = has_views<B> && has_executor<B> && has_gemm<B>;

/// A backend with work in flight on a stream; subsumes tensor_backend, so overloads pick it.
template <class B>
concept device_backend = tensor_backend<B> && requires(B const& backend) {
  backend.stream();
  backend.synchronize();
};

/// Says which requirement a backend misses, one sentence a rung, in every compiler.
/// Use: static_assert(lamina::check_backend<my_backend>());
template <class B>
consteval bool check_backend() {
  static_assert(has_scalar<B>, "lamina: a backend needs scalar_type, float or double");
  static_assert(has_storage<B>,
                "lamina: a backend needs a movable matrix_type and make_matrix(rows, cols) const "
                "that returns it");
  static_assert(has_views<B>,
                "lamina: a backend needs static view(matrix) that returns "
                "matrix_view<scalar_type>, and matrix_view<scalar_type const> for a const matrix");
  static_assert(has_executor<B>,
                "lamina: a backend needs executor() const that returns a row_executor");
  static_assert(has_gemm<B>,
                "lamina: a backend needs gemm(transpose, transpose, alpha, a, b, beta, c) const");
  return tensor_backend<B>;
}

LAMINA_NAMESPACE_END
