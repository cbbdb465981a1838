// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Square roots of a block of numbers, as fast as the processor divides.
#pragma once

#include <cmath>

#include "lamina/core/scalar.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

LAMINA_NAMESPACE_BEGIN

namespace detail {

// values[i] = sqrt(values[i]), correctly rounded; every value >= 0 or NaN. The SSE2 form is here
// because std::sqrt may set errno, and unless told -fno-math-errno a compiler keeps a loop over it
// scalar; the bits are the same.
LAMINA_HOST_DEVICE inline void square_roots(float* values, index_t count) noexcept {
  using std::sqrt;
  index_t i = 0;
#if defined(__SSE2__) && !defined(__CUDA_ARCH__)
  for (; i + 4 <= count; i += 4) _mm_storeu_ps(values + i, _mm_sqrt_ps(_mm_loadu_ps(values + i)));
#endif
  for (; i < count; ++i) values[i] = sqrt(values[i]);
}
LAMINA_HOST_DEVICE inline void square_roots(double* values, index_t count) noexcept {
  using std::sqrt;
  index_t i = 0;
#if defined(__SSE2__) && !defined(__CUDA_ARCH__)
  for (; i + 2 <= count; i += 2) _mm_storeu_pd(values + i, _mm_sqrt_pd(_mm_loadu_pd(values + i)));
#endif
  for (; i < count; ++i) values[i] = sqrt(values[i]);
}

}  // namespace detail

LAMINA_NAMESPACE_END
