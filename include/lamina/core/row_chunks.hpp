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

// Two elements rounded, as static_cast<T> rounds, the first in the lower half.
template <storage_scalar T>
requires(sizeof(T) == 2) LAMINA_HOST_DEVICE LAMINA_INLINE std::uint32_t
    narrow_pair(float first, float second) {
#if defined(__CUDA_ARCH__)
  std::uint32_t word = 0;
  if constexpr (std::same_as<T, bf16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  }
  return word;
#else
  return std::uint32_t{T(first).bits} | std::uint32_t{T(second).bits} << 16;
#endif
}

template <storage_scalar T>
LAMINA_HOST_DEVICE LAMINA_INLINE row_chunk<T> narrow(
    compute_t<T> const (&values)[row_chunk<T>::size]) {
  row_chunk<T> chunk;
  if constexpr (sizeof(T) == 2) {
    for (int i = 0; i < row_chunk<T>::size; i += 2) {
      std::uint32_t const word = narrow_pair<T>(values[i], values[i + 1]);
      __builtin_memcpy(chunk.values + i, &word, sizeof word);
    }
  } else {
    for (int i = 0; i < row_chunk<T>::size; ++i) chunk.values[i] = static_cast<T>(values[i]);
  }
  return chunk;
}

// 16 bytes at once. Of an assignment nvcc makes an access for every narrow element, and words that
// are stored over them it takes for other memory: hence instructions of our own. What follows the
// loop that stores calls end_of_stores() before it touches the elements.
template <storage_scalar T>
LAMINA_HOST_DEVICE LAMINA_INLINE row_chunk<T> load_chunk(T const* from) {
#if defined(__CUDA_ARCH__)
  std::uint32_t words[4];
  asm volatile("ld.global.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "l"(__cvta_generic_to_global(from)));
  row_chunk<T> chunk;
  __builtin_memcpy(&chunk, words, sizeof words);
  return chunk;
#else
  return *reinterpret_cast<row_chunk<T> const*>(from);
#endif
}
template <storage_scalar T>
LAMINA_HOST_DEVICE LAMINA_INLINE void store_chunk(T* to, row_chunk<T> const& chunk) {
#if defined(__CUDA_ARCH__)
  std::uint32_t words[4];
  __builtin_memcpy(words, &chunk, sizeof words);
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)),
               "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3]));
#else
  *reinterpret_cast<row_chunk<T>*>(to) = chunk;
#endif
}
LAMINA_HOST_DEVICE LAMINA_INLINE void end_of_stores() {
#if defined(__CUDA_ARCH__)
  asm volatile("" ::: "memory");
#endif
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
        stride_(static_cast<int>(lanes.count())) {
    int const whole = (lead_ + size_) / chunk_size;  // chunks, from the first one on
    bool const tail = whole * chunk_size < lead_ + size_;
    begin_ = lane_ == 0 && lead_ > 0 ? 1 : 0;
    end_ = lane_ < whole ? (whole - lane_ + stride_ - 1) / stride_ : 0;
    head_ = begin_ != 0;
    tail_ = tail && !(head_ && whole == 0) && whole % stride_ == lane_;
  }

  /// Whether this lane is the one that writes an element.
  LAMINA_HOST_DEVICE bool owns(index_t element) const {
    unsigned const chunk = static_cast<unsigned>(static_cast<int>(element) + lead_) /
                           static_cast<unsigned>(chunk_size);
    return chunk % static_cast<unsigned>(stride_) == static_cast<unsigned>(lane_);
  }

  /// Asks for as many whole chunks of the lane as its slots hold, without waiting for them; returns
  /// the end of those, for passes to come.
  LAMINA_HOST_DEVICE int fetch() const {
    int const slots = static_cast<int>(lanes_.slot_count()), end = slots < end_ ? slots : end_;
    for (int k = begin_; k < end; ++k) lanes_.fetch(k, data_ + place(k));
    return end;
  }

  /// Calls f(values) with the elements of `batch` of the lane's chunks at a time; elements beyond
  /// the row are `padding`. Chunks before `fetched`, what fetch returned, are in the slots: none,
  /// if that is 0 or less.
  template <class F>
  LAMINA_HOST_DEVICE void read(int fetched, T padding, F const& f) const {
    row_chunk<T> nothing;
    for (T& element : nothing.values) element = padding;
    auto const pass = [&](int begin, int end, auto const& at) {
      for (int k = begin; k < end; k += batch) {
        row_chunk<T> const first = at(k), second = k + 1 < end ? at(k + 1) : nothing;
        call(f, first, second);
      }
    };
    // The second half arrives while the first is worked.
    int const half = begin_ + (fetched - begin_) / 2 / batch * batch;
    if (fetched > begin_) lanes_.await(fetched - half);
    pass(begin_, half, [&](int k) { return *kept(k); });
    if (fetched > begin_) lanes_.await(0);
    pass(half > begin_ ? half : begin_, fetched, [&](int k) { return *kept(k); });
    pass(fetched > begin_ ? fetched : begin_, end_, [&](int k) { return chunk(k); });
    if (head_ || tail_) {
      call(f, head_ ? part(0, padding) : nothing, tail_ ? part(end_, padding) : nothing);
    }
  }

  /// Calls f(first, values) with the elements of one of the lane's chunks at a time, the first of
  /// which is element `first` of the row; chunks before `fetched`, which read has waited for, come
  /// from the slots. In the parts of a chunk that lie outside the row, values are `padding`.
  template <class F>
  LAMINA_HOST_DEVICE void visit(int fetched, T padding, F const& f) const {
    auto const call = [&](int k, row_chunk<T> const& chunk) {
      compute values[chunk_size];
      detail::widen(chunk, values);
      f(place(k), values);
    };
    for (int k = begin_; k < fetched; ++k) call(k, *kept(k));
    for (int k = fetched > begin_ ? fetched : begin_; k < end_; ++k) call(k, chunk(k));
    if (head_) call(0, part(0, padding));
    if (tail_) call(end_, part(end_, padding));
  }

  /// element = f(element) for all elements of the lane, in what T is computed in, read as by visit.
  template <class F>
  LAMINA_HOST_DEVICE void rewrite(int fetched, F const& f) const {
    visit(fetched, T(0.0f), [&](int first, compute(&values)[chunk_size]) {
      for (compute& value : values) value = f(value);
      store(first, detail::narrow<T>(values));
    });
    detail::end_of_stores();
  }

  /// All elements of the lane become `value`.
  LAMINA_HOST_DEVICE void fill(T value) const {
    row_chunk<T> values;
    for (T& element : values.values) element = value;
    for (int k = begin_; k < end_; ++k) store(place(k), values);
    if (head_) store(place(0), values);
    if (tail_) store(place(end_), values);
    detail::end_of_stores();
  }

 private:
  template <class F>
  LAMINA_HOST_DEVICE static void call(F const& f, row_chunk<T> const& first,
                                      row_chunk<T> const& second) {
    compute values[batch][chunk_size];
    detail::widen(first, values[0]);
    detail::widen(second, values[1]);
    f(values);
  }
  LAMINA_HOST_DEVICE row_chunk<T>* kept(int k) const {
    return static_cast<row_chunk<T>*>(lanes_.slot(k));
  }
  LAMINA_HOST_DEVICE int place(int k) const { return (lane_ + k * stride_) * chunk_size - lead_; }
  LAMINA_HOST_DEVICE row_chunk<T> chunk(int k) const {
    return detail::load_chunk(static_cast<T const*>(data_) + place(k));
  }
  LAMINA_HOST_DEVICE row_chunk<T> part(int k, T padding) const {
    row_chunk<T> values;
    for (int i = 0, at = place(k); i < chunk_size; ++i, ++at) {
      values.values[i] = at >= 0 && at < size_ ? data_[at] : padding;
    }
    return values;
  }
  LAMINA_HOST_DEVICE void store(int first, row_chunk<T> const& values) const {
    if (first >= 0 && first <= size_ - chunk_size) {
      detail::store_chunk(data_ + first, values);
      return;
    }
    for (int i = 0; i < chunk_size; ++i) {
      if (first + i >= 0 && first + i < size_) data_[first + i] = values.values[i];
    }
  }

  Lanes lanes_;
  T* data_;
  int size_, lead_, lane_, stride_;
  int begin_, end_;   // of the lane's whole chunks
  bool head_, tail_;  // whether it has the part of a chunk before them, or after
};

LAMINA_NAMESPACE_END
