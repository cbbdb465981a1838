// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A row as lanes with memory of their own pass over it: in chunks of 16 bytes, each read once, kept
// on the chip and written once.
#pragma once

#include <cstdint>

#include "lamina/core/detail/bits.hpp"
#include "lamina/core/lanes.hpp"
#include "lamina/core/scalar.hpp"

LAMINA_NAMESPACE_BEGIN

/// As many elements as one access moves.
template <storage_scalar T>
struct alignas(slot_bytes) row_chunk {
  static constexpr index_t size = slot_bytes / static_cast<index_t>(sizeof(T));
  T values[size];
};

namespace detail {

// The elements of a chunk as what they are computed in. Two narrow ones are a word: devices have
// instructions for pairs, and a shift makes a float of a bf16.
template <storage_scalar T>
LAMINA_HOST_DEVICE LAMINA_INLINE void widen(row_chunk<T> const& chunk,
                                            compute_t<T> (&values)[row_chunk<T>::size]) {
  if constexpr (std::same_as<T, bf16>) {
    for (int i = 0; i < row_chunk<T>::size; i += 2) {
      std::uint32_t word = 0;
      __builtin_memcpy(&word, chunk.values + i, sizeof word);
      values[i] = bit_cast<float>(word << 16);
      values[i + 1] = bit_cast<float>(word & 0xffff0000u);
    }
  } else {
    for (int i = 0; i < row_chunk<T>::size; ++i) {
      values[i] = static_cast<compute_t<T>>(chunk.values[i]);
    }
  }
}

// The same rounded, as static_cast<T> rounds.
template <storage_scalar T>
LAMINA_HOST_DEVICE LAMINA_INLINE row_chunk<T> narrow(
    compute_t<T> const (&values)[row_chunk<T>::size]) {
  row_chunk<T> chunk;
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == 2) {
    for (int i = 0; i < row_chunk<T>::size; i += 2) {
      std::uint32_t word = 0;
      if constexpr (std::same_as<T, bf16>) {
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(values[i + 1]), "f"(values[i]));
      } else {
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(values[i + 1]), "f"(values[i]));
      }
      __builtin_memcpy(chunk.values + i, &word, sizeof word);
    }
  } else
#endif
  {
    for (int i = 0; i < row_chunk<T>::size; ++i) chunk.values[i] = static_cast<T>(values[i]);
  }
  return chunk;
}

}  // namespace detail

/// `size` < 2^31 elements from `data` on, chunk k of which belongs to lane k mod lanes.count(). A
/// lane reads and writes its own chunks only, so passes need no agreement between lanes.
///
/// Chunks begin at multiples of 16 bytes, wherever the row does, and are one access each; the parts
/// of chunks that a row may begin and end with are read element by element. What does not fit into
/// a lane's slots is read again.
template <keeping_lane_group Lanes, storage_scalar T>
class row_chunks {
 public:
  static constexpr int chunk_size = static_cast<int>(row_chunk<T>::size);
  /// Chunks that are worked together.
  static constexpr int batch = 2;
  using compute = compute_t<T>;

  LAMINA_HOST_DEVICE row_chunks(Lanes lanes, T* data, index_t size)
      : lanes_(lanes),
        data_(data),
        size_(static_cast<int>(size)),
        lead_(static_cast<int>(reinterpret_cast<std::uintptr_t>(data) % slot_bytes / sizeof(T))),
        lane_(static_cast<int>(lanes.lane())),
        stride_(static_cast<int>(lanes.count())),
        chunks_((lead_ + size_ + chunk_size - 1) / chunk_size) {}

  /// Elements of chunk 0 that lie before the row.
  LAMINA_HOST_DEVICE int lead() const { return lead_; }
  /// Whether this lane is the one that writes an element.
  LAMINA_HOST_DEVICE bool owns(index_t element) const {
    unsigned const chunk = static_cast<unsigned>(static_cast<int>(element) + lead_) /
                           static_cast<unsigned>(chunk_size);
    return chunk % static_cast<unsigned>(stride_) == static_cast<unsigned>(lane_);
  }

  /// Asks for as much of the row as fits into the lane's slots, without waiting for it; returns how
  /// many chunks that are. `padding` stands for elements beyond the row.
  LAMINA_HOST_DEVICE int fetch(T padding) const {
    int const slots = static_cast<int>(lanes_.slot_count());
    int k = 0;
    for (int chunk = lane_; chunk < chunks_ && k < slots; chunk += stride_, ++k) {
      if (whole(chunk)) {
        lanes_.fetch(k, data_ + begin_of(chunk));
      } else {
        *kept(k) = load(chunk, padding);
      }
    }
    return k;
  }

  /// Calls f(values) with the elements of `batch` of the lane's chunks at a time; elements beyond
  /// the row are `padding`. Of `fetched` chunks, what fetch returned, the slots are read.
  template <class F>
  LAMINA_HOST_DEVICE void read(int fetched, T padding, F const& f) const {
    // Waits twice: for the first half, and for the second while that one is worked.
    int const half = fetched / 2 / batch * batch;
    int k = 0;
    for (int chunk = lane_; chunk < chunks_; chunk += batch * stride_, k += batch) {
      // One chunk less: the last need not be whole, and has not been asked for then.
      if (k == 0 && fetched > 0) lanes_.await(half > 0 ? fetched - half - 1 : 0);
      if (k == half && half > 0) lanes_.await(0);
      compute values[batch][chunk_size];
      for (int j = 0; j < batch; ++j) {
        detail::widen(k + j < fetched ? *kept(k + j) : load(chunk + j * stride_, padding),
                      values[j]);
      }
      f(values);
    }
  }

  /// element = f(element) for all elements of the lane, in what T is computed in; the slots of
  /// `fetched` chunks, which read has waited for, are read.
  template <class F>
  LAMINA_HOST_DEVICE void rewrite(int fetched, F const& f) const {
    int k = 0;
    for (int chunk = lane_; chunk < chunks_; chunk += stride_, ++k) {
      compute values[chunk_size];
      detail::widen(k < fetched ? *kept(k) : load(chunk, T(0.0f)), values);
      for (compute& value : values) value = f(value);
      store(chunk, detail::narrow<T>(values));
    }
  }

  /// All elements of the lane become `value`.
  LAMINA_HOST_DEVICE void fill(T value) const {
    row_chunk<T> values;
    for (T& element : values.values) element = value;
    for (int chunk = lane_; chunk < chunks_; chunk += stride_) store(chunk, values);
  }

 private:
  LAMINA_HOST_DEVICE row_chunk<T>* kept(int slot) const {
    return static_cast<row_chunk<T>*>(lanes_.slot(slot));
  }
  LAMINA_HOST_DEVICE int begin_of(int chunk) const { return chunk * chunk_size - lead_; }
  LAMINA_HOST_DEVICE bool whole(int chunk) const {
    int const begin = begin_of(chunk);
    return begin >= 0 && begin <= size_ - chunk_size;
  }
  LAMINA_HOST_DEVICE row_chunk<T> load(int chunk, T padding) const {
    int const begin = begin_of(chunk);
    if (whole(chunk)) return *reinterpret_cast<row_chunk<T> const*>(data_ + begin);
    row_chunk<T> values;
    for (int i = 0; i < chunk_size; ++i) {
      values.values[i] = begin + i >= 0 && begin + i < size_ ? data_[begin + i] : padding;
    }
    return values;
  }
  LAMINA_HOST_DEVICE void store(int chunk, row_chunk<T> const& values) const {
    int const begin = begin_of(chunk);
    if (whole(chunk)) {
      *reinterpret_cast<row_chunk<T>*>(data_ + begin) = values;
      return;
    }
    for (int i = 0; i < chunk_size; ++i) {
      if (begin + i >= 0 && begin + i < size_) data_[begin + i] = values.values[i];
    }
  }

  Lanes lanes_;
  T* data_;
  int size_, lead_, lane_, stride_, chunks_;
};

LAMINA_NAMESPACE_END
