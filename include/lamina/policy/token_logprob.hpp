// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Log-probability of the chosen token and entropy of the distribution, row by row of logits.
#pragma once

#include <cmath>
#include <limits>

#include "lamina/backend/backend.hpp"
#include "lamina/core/error.hpp"
#include "lamina/core/math.hpp"
#include "lamina/core/row_chunks.hpp"
#include "lamina/core/row_reduce.hpp"

LAMINA_NAMESPACE_BEGIN

/// What one pass over a row of logits z at temperature T leaves: with u = z / T,
/// p_j = exp(u_j - peak) / total.
struct softmax_summary {
  double peak = 0;      ///< max_j u_j
  double total = 0;     ///< sum_j exp(u_j - peak)
  double weighted = 0;  ///< sum_j (u_j - peak) exp(u_j - peak); 0 unless entropy was asked for

  /// log p for a scaled logit u.
  LAMINA_HOST_DEVICE double log_prob(double u) const { return u - peak - std::log(total); }
  /// H = -sum_j p_j log p_j, in nats.
  LAMINA_HOST_DEVICE double entropy() const { return std::log(total) - weighted / total; }
};

namespace detail {

inline constexpr index_t softmax_block = 4096;

// Leaves a row as it is.
struct keep_logits {
  template <class T, class E>
  LAMINA_HOST_DEVICE void store(T const&, E) const noexcept {}
  LAMINA_HOST_DEVICE void begin_block(index_t, double) const noexcept {}
};

// Leaves e^(u - peak so far) in place of every logit, so that a gradient needs no second
// exponential. Only where the storage has the precision that is computed in.
template <real T>
struct keep_exponentials {
  static constexpr index_t most_blocks = 64;
  double* block_peaks;  // [blocks of the row]
  LAMINA_HOST_DEVICE void store(T& logit, T exponential) const noexcept { logit = exponential; }
  LAMINA_HOST_DEVICE void begin_block(index_t block, double peak) const noexcept {
    block_peaks[block] = peak;
  }
};

// Lower than any finite number.
template <real T>
inline constexpr T lowest = sizeof(T) == 4 ? static_cast<T>(-3.4028234e38f)
                                           : static_cast<T>(-1.7976931348623157e308);

template <bool WithEntropy, real compute, lane_group Lanes, class Row, class Keep>
LAMINA_HOST_DEVICE inline softmax_summary summarize_blocks(Lanes lanes, Row row, index_t vocab,
                                                           compute inverse_temperature, Keep keep) {
  compute peak = lowest<compute>;
  double total = 0;
  double weighted = 0;
  for (index_t begin = 0; begin < vocab; begin += softmax_block) {
    index_t const end = begin + softmax_block < vocab ? begin + softmax_block : vocab;
    compute const block_peak = static_cast<compute>(lanes.max(
        lane_max(lanes, begin, end, lowest<compute>, [row, inverse_temperature](index_t v) {
          return static_cast<compute>(row[v]) * inverse_temperature;
        })));
    if (block_peak > peak) {
      if (total > 0) {
        double const shift = static_cast<double>(peak) - static_cast<double>(block_peak);
        double const scale = std::exp(shift);
        weighted = scale * (weighted + shift * total);
        total *= scale;
      }
      peak = block_peak;
    }
    keep.begin_block(begin / softmax_block, static_cast<double>(peak));
    if constexpr (WithEntropy) {
      auto const sums = lane_sum_pair<compute>(
          lanes, begin, end, [row, inverse_temperature, peak, keep](index_t v) {
            compute const u = static_cast<compute>(row[v]) * inverse_temperature - peak;
            compute const e = row_exp(u);
            keep.store(row[v], e);
            // Beyond -1000 the exponential is 0; the bound keeps 0 * -infinity out.
            return sum_pair<compute>{e, e * clamp_magnitude(u, compute(1000))};
          });
      total += static_cast<double>(sums.first);
      weighted += static_cast<double>(sums.second);
    } else {
      total += static_cast<double>(
          lane_sum<compute>(lanes, begin, end, [row, inverse_temperature, peak, keep](index_t v) {
            compute const e = row_exp(static_cast<compute>(row[v]) * inverse_temperature - peak);
            keep.store(row[v], e);
            return e;
          }));
    }
  }
  return {static_cast<double>(peak), lanes.sum(total), WithEntropy ? lanes.sum(weighted) : 0.0};
}

// Of two numbers; a NaN loses, and is found in the sums.
LAMINA_HOST_DEVICE LAMINA_INLINE float greater_of(float a, float b) {
  return __builtin_fmaxf(a, b);
}
LAMINA_HOST_DEVICE LAMINA_INLINE double greater_of(double a, double b) {
  return __builtin_fmax(a, b);
}

// A part of a row in the units of row_power: with t = u row_unit(), the largest t, and with it
// taken off the sums of e^u and of t e^u. In T throughout: every sum is a tree of few terms.
template <bool WithEntropy, real T>
struct row_part {
  T peak{}, total{}, weighted{};
};
template <real T>
struct row_part<false, T> {
  T peak{}, total{};
};

// Parts become one: all are moved to the highest of their peaks, then added.
template <bool WithEntropy, real T>
struct merge_parts {
  using part = row_part<WithEntropy, T>;

  LAMINA_HOST_DEVICE static T level(part const& a) { return a.peak; }
  LAMINA_HOST_DEVICE static part moved(part a, T peak) {
    T const shift = a.peak - peak, scale = row_power(shift);
    a.peak = peak;
    if constexpr (WithEntropy) {
      // A part that has seen nothing has the lowest peak, sums 0 and no use for the shift.
      a.weighted = scale * (a.weighted + clamp_magnitude(shift, T(1000)) * a.total);
    }
    a.total *= scale;
    return a;
  }
  LAMINA_HOST_DEVICE static part added(part a, part const& b) {
    a.total += b.total;
    if constexpr (WithEntropy) a.weighted += b.weighted;
    return a;
  }
  LAMINA_HOST_DEVICE part operator()(part const& a, part const& b) const {
    T const peak = greater_of(a.peak, b.peak);
    return added(moved(a, peak), moved(b, peak));
  }
};

// Of row_unit(), in nats.
template <real T>
LAMINA_HOST_DEVICE constexpr double nats_of_unit() {
  return row_unit<T>() == T(1) ? 1.0 : 0.6931471805599453;
}

// What row_chunks::fetch has returned where nobody called it: lanes have no slots, or nothing reads
// them. Not 0, which a lane with slots may have got.
inline constexpr int nothing_fetched = -1;

// What summarize_blocks gives, by lanes that read in chunks: each has a peak and sums of its own,
// which meet once a row. The first `fetched` chunks of a lane are read from its slots.
template <bool WithEntropy, keeping_lane_group Lanes, storage_scalar T>
LAMINA_HOST_DEVICE inline softmax_summary summarize_chunks(Lanes lanes, T* row, index_t vocab,
                                                           compute_t<T> inverse_temperature,
                                                           int fetched) {
  using compute = compute_t<T>;
  using chunks = row_chunks<Lanes, T>;
  using merge = merge_parts<WithEntropy, compute>;
  constexpr int width = chunks::chunk_size;
  compute const scale = inverse_temperature * row_unit<compute>();
  typename merge::part own{lowest<compute>};
  chunks(lanes, row, vocab)
      .read(fetched, T(-__builtin_huge_valf()), [&](compute const(&z)[chunks::batch][width]) {
        // Maxima and sums of neighbours first: chains of dependent instructions stay short.
        compute tops[width];
        for (int i = 0; i < width; ++i) tops[i] = greater_of(z[0][i], z[1][i]);
        for (int step = width / 2; step > 0; step /= 2) {
          for (int i = 0; i < step; ++i) tops[i] = greater_of(tops[i], tops[i + step]);
        }
        compute const top = tops[0] * scale;
        if (top > own.peak) own = merge::moved(own, top);
        compute sums[width], weighted[width];
        for (int i = 0; i < width; ++i) {
          sums[i] = weighted[i] = 0;
          for (int j = 0; j < chunks::batch; ++j) {
            compute const t = z[j][i] * scale - own.peak;
            compute const e = row_power(t);
            sums[i] += e;
            if constexpr (WithEntropy) weighted[i] += e * clamp_magnitude(t, compute(1000));
          }
        }
        for (int step = width / 2; step > 0; step /= 2) {
          for (int i = 0; i < step; ++i) {
            sums[i] += sums[i + step];
            if constexpr (WithEntropy) weighted[i] += weighted[i + step];
          }
        }
        own.total += sums[0];
        if constexpr (WithEntropy) own.weighted += weighted[0];
      });
  auto const whole = lanes.fold(own, merge{});
  double const unit = nats_of_unit<compute>();
  softmax_summary summary{unit * static_cast<double>(whole.peak), static_cast<double>(whole.total),
                          0};
  if constexpr (WithEntropy) summary.weighted = unit * static_cast<double>(whole.weighted);
  return summary;
}

}  // namespace detail

/// Reads a row once. One lane, or a warp, takes it block by block: the peak and the sums are
/// rescaled when a block raises the peak, and block sums are kept in double, so that the error does
/// not grow with the vocabulary. Lanes of whole blocks have a peak and sums each, which become one
/// at the end. A logit of -infinity (a token that cannot be drawn) has probability 0.
template <bool WithEntropy, lane_group Lanes, storage_scalar T>
LAMINA_HOST_DEVICE inline softmax_summary summarize_row(Lanes lanes, T const* row, index_t vocab,
                                                        compute_t<T> inverse_temperature) {
  if constexpr (keeping_lane_group<Lanes>) {
    return detail::summarize_chunks<WithEntropy>(lanes, const_cast<T*>(row), vocab,
                                                 inverse_temperature, detail::nothing_fetched);
  } else {
    return detail::summarize_blocks<WithEntropy, compute_t<T>>(
        lanes, row, vocab, inverse_temperature, detail::keep_logits{});
  }
}

namespace detail {

template <real T>
inline constexpr T no_number = std::numeric_limits<T>::quiet_NaN();

// The chosen logit over the temperature. NaN for a token outside the vocabulary: hosts refuse it at
// the door, devices cannot.
template <storage_scalar T>
LAMINA_HOST_DEVICE inline compute_t<T> scaled_logit(T const* values, index_t vocab, index_t chosen,
                                                    compute_t<T> inverse_temperature) {
  if (chosen < 0 || chosen >= vocab) return no_number<compute_t<T>>;
  return static_cast<compute_t<T>>(values[chosen]) * inverse_temperature;
}

}  // namespace detail

/// Row r of the logits belongs to token r.
struct token_of_row {
  LAMINA_HOST_DEVICE constexpr index_t operator()(index_t row) const noexcept { return row; }
};

/// log_probs[t] = log p(token_ids[t] | logits[r, :]) and, if asked for, entropies[t], where row r
/// belongs to token t = tokens(r).
template <bool WithEntropy, storage_scalar T, class Tokens = token_of_row>
struct token_log_prob_body {
  static constexpr row_schedule schedule = row_schedule::block;
  matrix_view<T const> logits;
  std::int32_t const* token_ids;
  std::uint8_t const* mask;  // null: every row is read
  compute_t<T> inverse_temperature;
  vector_view<compute_t<T>> log_probs;
  vector_view<compute_t<T>> entropies;
  Tokens tokens{};

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    index_t const token = tokens(row);
    if (mask != nullptr && mask[token] == 0) {
      if (lanes.lane() == 0) {
        log_probs[token] = 0;
        if constexpr (WithEntropy) entropies[token] = 0;
      }
      return;
    }
    T const* const values = logits.row(row).data;
    softmax_summary const summary =
        summarize_row<WithEntropy>(lanes, values, logits.cols, inverse_temperature);
    if (lanes.lane() == 0) {
      auto const chosen =
          detail::scaled_logit(values, logits.cols, token_ids[token], inverse_temperature);
      log_probs[token] = static_cast<compute_t<T>>(summary.log_prob(static_cast<double>(chosen)));
      if constexpr (WithEntropy) entropies[token] = static_cast<compute_t<T>>(summary.entropy());
    }
  }
};

namespace detail {

// A matrix whose rows overlap is none. `name` is the argument's.
template <class T>
void check_stride(char const* function, char const* name, matrix_view<T> matrix) {
  if (matrix.rows > 0 && matrix.stride < matrix.cols) {
    throw_shape_error(function, ": ", name, " has row stride ", matrix.stride, " and ", matrix.cols,
                      " columns; expected stride >= columns");
  }
}

// Sizes of what belongs to the rows of a matrix called `name`, and the temperature; reads no array.
inline void check_rows(char const* function, char const* name, index_t rows,
                       vector_view<std::int32_t const> token_ids,
                       vector_view<std::uint8_t const> mask, double temperature) {
  if (token_ids.size != rows) {
    throw_shape_error(function, ": token_ids has ", token_ids.size, " entries, ", name, " has ",
                      rows, " rows; expected one token a row");
  }
  if (!mask.empty() && mask.size != rows) {
    throw_shape_error(function, ": mask has ", mask.size, " entries, ", name, " has ", rows,
                      " rows; expected one entry a row, or an empty mask");
  }
  if (!(temperature > 0) || !is_finite(temperature)) {
    throw_config_error(function, ": temperature is ", temperature, ", expected a finite value > 0");
  }
}

// Chosen tokens of a matrix called `name` that has, or leads to, `rows` rows of logits.
inline void check_token_ids(char const* function, char const* name, index_t rows, index_t vocab,
                            vector_view<std::int32_t const> token_ids,
                            vector_view<std::uint8_t const> mask, double temperature) {
  check_rows(function, name, rows, token_ids, mask, temperature);
  for (index_t t = 0; t < token_ids.size; ++t) {
    if (!mask.empty() && mask[t] == 0) continue;
    if (token_ids[t] < 0 || token_ids[t] >= vocab) {
      throw_config_error(function, ": token_ids[", t, "] is ", token_ids[t],
                         ", the vocabulary is 0..", vocab - 1);
    }
  }
}

// Everything a logits-level call can get wrong, before anything is written.
template <class T>
void check_logits(char const* function, matrix_view<T> logits,
                  vector_view<std::int32_t const> token_ids, vector_view<std::uint8_t const> mask,
                  double temperature) {
  check_stride(function, "logits", logits);
  check_token_ids(function, "logits", logits.rows, logits.cols, token_ids, mask, temperature);
}

template <class T>
void check_log_prob_outputs(matrix_view<T> logits, index_t log_probs, index_t entropies) {
  if (log_probs != logits.rows || (entropies != 0 && entropies != logits.rows)) {
    throw_shape_error("token_log_probs: log_probs has ", log_probs, " and entropies ", entropies,
                      " entries, logits has ", logits.rows,
                      " rows; expected one entry a row (entropies may be empty)");
  }
}

template <tensor_backend Backend, storage_scalar T>
void run_token_log_probs(Backend const& backend, matrix_view<T const> logits,
                         vector_view<std::int32_t const> token_ids,
                         vector_view<std::uint8_t const> mask, double temperature,
                         vector_view<compute_t<T>> log_probs, vector_view<compute_t<T>> entropies) {
  auto const inverse = static_cast<compute_t<T>>(1.0 / temperature);
  std::uint8_t const* const given = mask.empty() ? nullptr : mask.data;
  if (entropies.empty()) {
    backend.executor().run(logits.rows,
                           token_log_prob_body<false, T>{logits, token_ids.data, given, inverse,
                                                         log_probs, entropies});
  } else {
    backend.executor().run(
        logits.rows,
        token_log_prob_body<true, T>{logits, token_ids.data, given, inverse, log_probs, entropies});
  }
}

}  // namespace detail

/// Log-probability of one token a row, and the entropy of each row, at a temperature.
///
/// logits     [tokens, vocab]  f32, f64, bf16 or f16; narrow types are computed in float
/// token_ids  [tokens]         the token whose log-probability is wanted
/// mask       [tokens]         0 = do not read this row (outputs 0); empty = read all
/// log_probs  [tokens]         nats
/// entropies  [tokens]         nats; empty = not computed
/// Throws shape_error if the sizes differ, config_error for a token outside the vocabulary or a
/// temperature that is not finite and positive.
template <tensor_backend Backend, class T>
requires storage_scalar<std::remove_const_t<T>>
void token_log_probs(Backend const& backend, matrix_view<T> logits,
                     vector_view<std::int32_t const> token_ids,
                     vector_view<std::uint8_t const> mask, double temperature,
                     vector_view<compute_t<std::remove_const_t<T>>> log_probs,
                     vector_view<compute_t<std::remove_const_t<T>>> entropies = {}) {
  static_assert(host_backend<Backend>,
                "lamina: token_log_probs on a device: include lamina/policy/device_loss.hpp");
  detail::check_logits("token_log_probs", logits, token_ids, mask, temperature);
  detail::check_log_prob_outputs(logits, log_probs.size, entropies.size);
  detail::run_token_log_probs<Backend, std::remove_const_t<T>>(backend, logits, token_ids, mask,
                                                               temperature, log_probs, entropies);
}

LAMINA_NAMESPACE_END
