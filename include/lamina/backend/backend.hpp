// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a tensor backend is: a scalar, storage, views of it, something that works rows, a GEMM.
#pragma once

#include <concepts>
#include <cstddef>
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

/// A backend. Backends are passed as objects: a device backend carries its stream, a host backend
/// its parallel_for hook.
template <class B>
concept tensor_backend = has_views<B> && has_executor<B> && has_gemm<B>;

/// A backend whose memory the host cannot touch and whose work is done later, in the order it was
/// asked for, on a stream; subsumes tensor_backend, so that overloads pick it.
///
/// backend.stream()                 the host's own stream
/// backend.synchronize()            waits for all work asked for so far
/// backend.make_bytes(n)            n zeroed bytes of device memory, aligned for every scalar type,
///                                  as a movable owner with data(), which gives them back in order
/// backend.copy(to, from, n)        copies n bytes between memories of any kind, in order; the
///                                  host's side must stay until the copy is done
/// backend.reaches(p)               whether bodies may use the memory at p
template <class B>
concept device_backend = tensor_backend<B> &&
    requires(B const& backend, void* to, void const* from, std::size_t n) {
  backend.stream();
  backend.synchronize();
  requires std::movable<decltype(backend.make_bytes(n))>;
  { backend.make_bytes(n).data() } -> std::same_as<void*>;
  backend.copy(to, from, n);
  { backend.reaches(from) } -> std::same_as<bool>;
};

/// A backend whose memory the host can touch, and whose work is done when a call returns.
template <class B>
concept host_backend = tensor_backend<B> && !device_backend<B>;

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

/// The same for a backend of a device.
template <class B>
consteval bool check_device_backend() {
  static_assert(check_backend<B>());
  static_assert(
      requires(B const& backend) {
        backend.stream();
        backend.synchronize();
      },
      "lamina: a device backend needs stream() const and synchronize() const");
  static_assert(device_backend<B>,
                "lamina: a device backend needs make_bytes(n) const that returns a movable owner "
                "with data() -> void*, copy(to, from, n) const and reaches(pointer) const -> bool");
  return device_backend<B>;
}

LAMINA_NAMESPACE_END
