// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What changed since a snapshot, as a stream of small pieces: for pushing weights to an inference
// engine.
#pragma once

#include <algorithm>
#include <string_view>
#include <vector>

#include "lamina/io/raw_tensor.hpp"
#include "lamina/optim/audit.hpp"

LAMINA_NAMESPACE_BEGIN

/// Sends every element that differs from the snapshot, bit for bit, in pieces. Writing the bytes of
/// all pieces over the snapshot's tensors gives the weights of `parameters`.
///
/// parameters   the snapshot's tensors or some of them: the selected ones, say, of which alone a
///              snapshot was taken
/// piece_bytes  most bytes of a piece
/// send         send(std::string_view name, index_t byte_offset, std::string_view bytes), called in
///              the order of `parameters` and of offsets; the bytes are those of the weights
/// Elements that did not change are sent along where there are fewer than 16 between two that did.
///
/// Returns the bytes sent. Throws, before anything is sent, config_error if the snapshot lacks a
/// parameter or piece_bytes is less than an element, shape_error if a size has changed.
template <storage_scalar T, class Send>
index_t changed_tensors(weight_snapshot<T> const& before,
                        std::vector<parameter_view<T>> const& parameters, index_t piece_bytes,
                        Send&& send) {
  constexpr index_t element_bytes = static_cast<index_t>(sizeof(T));
  constexpr index_t longest_gap = 16;
  if (piece_bytes < element_bytes) {
    throw_config_error("changed_tensors: piece_bytes is ", piece_bytes, ", expected at least ",
                       element_bytes);
  }
  for (parameter_view<T> const& parameter : parameters) {
    auto const* const copy = before.find(parameter.name);
    if (copy == nullptr) {
      throw_config_error("changed_tensors: the snapshot has no parameter ", parameter.name);
    }
    if (static_cast<index_t>(copy->values.size()) != parameter.weight.size) {
      throw_shape_error("changed_tensors: ", parameter.name, " has ", parameter.weight.size,
                        " elements, its snapshot has ", copy->values.size());
    }
  }
  index_t const longest = piece_bytes / element_bytes;
  index_t sent = 0;
  for (parameter_view<T> const& parameter : parameters) {
    vector_view<T const> const old = before.find(parameter.name)->values;
    vector_view<T const> const now = parameter.weight;
    for (index_t begin = 0; begin < now.size;) {
      if (same_bits(old[begin], now[begin])) {
        ++begin;
        continue;
      }
      index_t end = begin + 1;  // past the last change that belongs to the piece
      index_t const limit = (std::min)(begin + longest, now.size);
      for (index_t i = end; i < limit && i - end < longest_gap; ++i) {
        if (!same_bits(old[i], now[i])) end = i + 1;
      }
      std::string_view const bytes = bytes_of(now.subview(begin, end - begin));
      send(parameter.name, begin * element_bytes, bytes);
      sent += static_cast<index_t>(bytes.size());
      begin = end;
    }
  }
  return sent;
}

LAMINA_NAMESPACE_END
