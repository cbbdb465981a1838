// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The kernels whose speed is memory's, compiled alone so that hot_kernels.py can read what the
// compiler made of them.
#include "lamina/backend/cuda.cuh"
#include "lamina/policy/logits_loss.hpp"
#include "lamina/policy/presets.hpp"

using namespace lamina;

template <bool WithEntropy, class T>
void gradients(cuda_rows rows, policy_logits_body<WithEntropy, T, grpo> body) {
  rows.run(body.logits.rows, body);
}
template void gradients(cuda_rows, policy_logits_body<false, bf16, grpo>);
template void gradients(cuda_rows, policy_logits_body<true, bf16, grpo>);
template void gradients(cuda_rows, policy_logits_body<false, float, grpo>);
template void gradients(cuda_rows, policy_logits_body<true, float, grpo>);

template <class T>
void other_passes(cuda_rows rows, token_log_prob_body<true, T> log_probs,
                  logits_gradient_body<T> second_visit) {
  rows.run(log_probs.logits.rows, log_probs);
  rows.run(second_visit.logits.rows, second_visit);
}
template void other_passes(cuda_rows, token_log_prob_body<true, bf16>, logits_gradient_body<bf16>);
