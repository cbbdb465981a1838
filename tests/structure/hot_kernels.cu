// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The kernels whose speed is memory's, and those that multiply on tensor cores, compiled alone so
// that hot_kernels.py can read what the compiler made of them.
#include "examples/decoder/device/narrow_attention.hpp"
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

template <int Width>
void attention(cuda_rows rows, decoder::narrow_attention<bf16, Width> forward,
               decoder::narrow_query_gradients<bf16, Width> queries,
               decoder::narrow_key_value_gradients<bf16, Width> keys) {
  rows.run(forward.row_count(), forward);
  rows.run(queries.row_count(), queries);
  rows.run(keys.row_count(), keys);
}
template void attention(cuda_rows, decoder::narrow_attention<bf16, 64>,
                        decoder::narrow_query_gradients<bf16, 64>,
                        decoder::narrow_key_value_gradients<bf16, 64>);
template void attention(cuda_rows, decoder::narrow_attention<bf16, 128>,
                        decoder::narrow_query_gradients<bf16, 128>,
                        decoder::narrow_key_value_gradients<bf16, 128>);
