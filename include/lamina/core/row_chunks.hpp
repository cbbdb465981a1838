// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A row as lanes with memory of their own pass over it: in chunks of 16 bytes, each read once, kept
// on the chip and written once.
#pragma once

#include "lamina/core/lanes.hpp"
#include "lamina/core/scalar.hpp"

LAMINA_NAMESPACE_BEGIN

/// As many elements as one access moves.
template <storage_scalar T>
struct alignas(slot_bytes) row_chunk {
  static constexpr index_t size = slot_bytes / static_cast<index_t>(sizeof(T));
  T values[size];
};

/// `size` elements from `data` on, chunk k of which belongs to lane k mod lanes.count(). A lane
/// reads and writes its own chunks only, so passes need no agreement between lanes.
///
/// Chunks of rows that start at a multiple of 16 bytes are one access each; other rows, and the end
/// of a row, are read element by element. What does not fit into a lane's slots is read again.
template <keeping_lane_group Lanes, storage_scalar T>
class row_chunks {
 public:
  static constexpr index_t chunk_size = row_chunk<T>::size;
  /// Chunks that are read before the first of them is used: two keep memory busy, more would take
  /// registers from other blocks.
  static constexpr index_t batch = 2;

  LAMINA_HOST_DEVICE row_chunks(Lanes lanes, T* data, index_t size)
      : lanes_(lanes),
        data_(data),
        size_(size),
        aligned_(reinterpret_cast<std::uintptr_t>(data) % slot_bytes == 0) {}

  /// The lane that writes an element.
  LAMINA_HOST_DEVICE index_t owner(index_t element) const {
    return element / chunk_size % lanes_.count();
  }

  /// Calls f(chunks) with `batch` of the lane's chunks at a time; elements beyond the
  /// end are `padding`. With Keep, what fits stays in the lane's slots.
  template <bool Keep, class F>
  LAMINA_HOST_DEVICE void read(T padding, F const& f) const {
    index_t const chunks = chunk_count(), stride = lanes_.count();
    index_t slot = 0;
    for (index_t first = lanes_.lane(); first < chunks; first += batch * stride) {
      row_chunk<T> loaded[batch];
      for (index_t j = 0; j < batch; ++j) loaded[j] = load(first + j * stride, padding);
      if constexpr (Keep) {
        for (index_t j = 0; j < batch; ++j, ++slot) {
          if (slot < lanes_.slot_count()) *kept(slot) = loaded[j];
        }
      }
      f(loaded);
    }
  }

  /// element = f(element) for all elements of the lane, from the slots where Kept says that read
  /// has filled them. f takes and returns what T is computed in.
  template <bool Kept, class F>
  LAMINA_HOST_DEVICE void rewrite(F const& f) const {
    index_t const chunks = chunk_count(), stride = lanes_.count();
    index_t slot = 0;
    for (index_t chunk = lanes_.lane(); chunk < chunks; chunk += stride, ++slot) {
      row_chunk<T> values;
      if (Kept && slot < lanes_.slot_count()) {
        values = *kept(slot);
      } else {
        values = load(chunk, T(0.0f));
      }
      for (index_t i = 0; i < chunk_size; ++i) {
        values.values[i] = static_cast<T>(f(static_cast<compute_t<T>>(values.values[i])));
      }
      store(chunk, values);
    }
  }

  /// All elements of the lane become `value`.
  LAMINA_HOST_DEVICE void fill(T value) const {
    row_chunk<T> values;
    for (index_t i = 0; i < chunk_size; ++i) values.values[i] = value;
    index_t const chunks = chunk_count();
    for (index_t chunk = lanes_.lane(); chunk < chunks; chunk += lanes_.count()) {
      store(chunk, values);
    }
  }

 private:
  LAMINA_HOST_DEVICE index_t chunk_count() const { return (size_ + chunk_size - 1) / chunk_size; }
  LAMINA_HOST_DEVICE row_chunk<T>* kept(index_t slot) const {
    return static_cast<row_chunk<T>*>(lanes_.slot(slot));
  }
  LAMINA_HOST_DEVICE bool whole(index_t chunk) const {
    return aligned_ && (chunk + 1) * chunk_size <= size_;
  }
  LAMINA_HOST_DEVICE row_chunk<T> load(index_t chunk, T padding) const {
    T const* const from = data_ + chunk * chunk_size;
    row_chunk<T> values;
    if (whole(chunk)) {
      values = *reinterpret_cast<row_chunk<T> const*>(from);
    } else {
      for (index_t i = 0; i < chunk_size; ++i) {
        values.values[i] = chunk * chunk_size + i < size_ ? from[i] : padding;
      }
    }
    return values;
  }
  LAMINA_HOST_DEVICE void store(index_t chunk, row_chunk<T> const& values) const {
    T* const to = data_ + chunk * chunk_size;
    if (whole(chunk)) {
      *reinterpret_cast<row_chunk<T>*>(to) = values;
    } else {
      for (index_t i = 0; i < chunk_size; ++i) {
        if (chunk * chunk_size + i < size_) to[i] = values.values[i];
      }
    }
  }

  Lanes lanes_;
  T* data_;
  index_t size_;
  bool aligned_;
};

LAMINA_NAMESPACE_END
