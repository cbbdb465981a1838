// expect: lamina: a DLManagedTensor cannot say that it is read-only
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/dlpack.hpp"

#ifdef LAMINA_FIXED
using managed = lamina::dlpack_managed_tensor_versioned;
#else
using managed = lamina::dlpack_managed_tensor;
#endif

managed* share(lamina::matrix_view<float const> logits) {
  return lamina::to_dlpack<managed>(logits, 0);
}
