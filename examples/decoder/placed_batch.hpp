// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A batch where row bodies can read it, with what is computed from it once: in vectors of the host,
// or in the memory of a device.
#pragma once

#include <algorithm>
#include <memory>
#include <type_traits>
#include <vector>

#include "examples/decoder/batch.hpp"
#include "examples/decoder/device/attention.hpp"
#include "lamina/backend/device_vector.hpp"

namespace decoder {

/// Positions of a batch, sorted by token and then by position.
///
/// first      [vocab + 1]  where the positions of each token start
/// positions  [tokens]
template <class Vector>
struct token_order {
  Vector first;
  Vector positions;
};
using token_order_view = token_order<vector_view<index_t const>>;

/// By a counting sort.
inline void sort_by_token(std::vector<std::int32_t> const& tokens, index_t vocab,
                          token_order<std::vector<index_t>>& order) {
  std::vector<index_t>& first = order.first;
  first.assign(static_cast<std::size_t>(vocab) + 1, 0);
  order.positions.resize(tokens.size());
  for (std::int32_t const token : tokens) ++first[static_cast<std::size_t>(token) + 1];
  for (std::size_t v = 1; v < first.size(); ++v) first[v] += first[v - 1];
  for (std::size_t p = 0; p < tokens.size(); ++p) {
    auto const token = static_cast<std::size_t>(tokens[p]);
    order.positions[static_cast<std::size_t>(first[token]++)] = static_cast<index_t>(p);
  }
  // Each first now stands at its end, which is the next one's start.
  for (std::size_t v = first.size() - 1; v > 0; --v) first[v] = first[v - 1];
  first[0] = 0;
}

/// Place of every token in its sequence.
inline void place_tokens(token_batch const& batch, std::vector<index_t>& positions) {
  positions.resize(batch.tokens.size());
  for (std::size_t s = 0; s + 1 < batch.offsets.size(); ++s) {
    index_t const begin = batch.offsets[s], end = batch.offsets[s + 1];
    for (index_t p = begin; p < end; ++p) positions[static_cast<std::size_t>(p)] = p - begin;
  }
}

/// Tokens of the longest sequence.
inline index_t longest_sequence(token_batch const& batch) {
  index_t longest = 0;
  for (std::size_t s = 0; s + 1 < batch.offsets.size(); ++s) {
    longest = std::max(longest, batch.offsets[s + 1] - batch.offsets[s]);
  }
  return longest;
}

/// A batch of a host, copied; keeps its memory between batches.
class host_batch {
 public:
  void assign(token_batch const& batch) {
    batch_ = batch;
    place_tokens(batch_, positions_);
    longest_ = longest_sequence(batch_);
  }

  index_t token_count() const { return batch_.token_count(); }
  index_t longest() const { return longest_; }
  vector_view<std::int32_t const> tokens() const { return batch_.tokens; }
  vector_view<index_t const> offsets() const { return batch_.offsets; }
  vector_view<index_t const> logit_rows() const { return batch_.logit_rows; }
  vector_view<index_t const> positions() const { return positions_; }
  token_order_view order(index_t vocab) {
    sort_by_token(batch_.tokens, vocab, order_);
    return {order_.first, order_.positions};
  }

 private:
  token_batch batch_;
  std::vector<index_t> positions_;
  index_t longest_ = 0;
  token_order<std::vector<index_t>> order_;
};

/// An array of the host and its copy on a device, uploaded in the order of the stream; has to stay
/// until the stream has come to it.
template <lamina::device_backend Backend, class T>
class mirrored_array {
 public:
  mirrored_array(Backend const& backend, std::vector<T> values)
      : host_(std::move(values)), device_(backend, vector_view<T const>(host_)) {}
  vector_view<T const> view() const { return device_.view(); }
  vector_view<T> view() { return device_.view(); }

 private:
  std::vector<T> host_;
  lamina::device_vector<Backend, T> device_;
};

/// The work of the attention's passes on a device: for those that work queries, and for the one
/// that works keys. The longest first, so that none is left for the end.
struct attention_blocks {
  vector_view<attention_block const> queries;
  vector_view<attention_block const> keys;
};

/// A batch in the memory of a device, for models of one shape: uploaded once, used by as many
/// passes as the host likes. Copies share the memory, which stays until the last one is gone; one
/// has to stay until the stream has come to the upload.
template <lamina::device_backend Backend>
class device_batch {
 public:
  device_batch() = default;
  /// Throws what check(batch, shape) throws.
  device_batch(Backend const& backend, token_batch const& batch, config const& shape)
      : content_((check(batch, shape), std::make_shared<content>(backend, batch, shape))) {}

  config const& shape() const { return content_->shape; }
  index_t token_count() const { return content_->tokens.view().size; }
  index_t longest() const { return content_->longest; }
  vector_view<std::int32_t const> tokens() const { return content_->tokens.view(); }
  vector_view<index_t const> logit_rows() const { return content_->logit_rows.view(); }
  vector_view<index_t const> positions() const { return content_->positions.view(); }
  /// Throws config_error if the tokens have been overwritten.
  token_order_view order(index_t) const {
    if (content_->overwritten) {
      lamina::throw_config_error(
          "decoder::backward: the tokens of the batch were overwritten on the device, and the "
          "embedding is trained; expected a batch of tokens that the host knows");
    }
    return {content_->first.view(), content_->sorted.view()};
  }
  /// The tokens, for bodies that put others of the vocabulary in their place, in a batch whose
  /// offsets and logit rows fit them. From then on no embedding can be trained on it, because the
  /// order of its tokens is not known.
  vector_view<std::int32_t> overwrite_tokens() {
    content_->overwritten = true;
    return content_->tokens.view();
  }
  /// For tiles of the backend's scalar, and for rounded ones.
  attention_blocks blocks() const { return content_->blocks.views(); }
  attention_blocks narrow_blocks() const { return content_->narrow_blocks.views(); }

  void assign(device_batch const& other) { *this = other; }
  explicit operator bool() const { return content_ != nullptr; }

 private:
  using T = typename Backend::scalar_type;
  template <class U>
  using on_device = mirrored_array<Backend, U>;

  struct placed_blocks {
    placed_blocks(Backend const& backend, token_batch const& batch, index_t query_count,
                  index_t key_count)
        : queries(backend,
                  cut(batch, query_count,
                      [](attention_block const& b) { return b.token + b.count - b.keys; })),
          keys(backend,
               cut(batch, key_count, [](attention_block const& b) { return b.end - b.token; })) {}

    on_device<attention_block> queries;
    on_device<attention_block> keys;

    attention_blocks views() const { return {queries.view(), keys.view()}; }

   private:
    // Blocks of at most `size` tokens, the most work first.
    template <class Work>
    static std::vector<attention_block> cut(token_batch const& batch, index_t size,
                                            Work const& work) {
      std::vector<attention_block> blocks;
      for (std::size_t s = 0; s + 1 < batch.offsets.size(); ++s) {
        index_t const begin = batch.offsets[s], end = batch.offsets[s + 1];
        for (index_t token = begin; token < end; token += size) {
          blocks.push_back({token, std::min(size, end - token), begin, end});
        }
      }
      std::stable_sort(blocks.begin(), blocks.end(),
                       [&](auto const& a, auto const& b) { return work(a) > work(b); });
      return blocks;
    }
  };

  struct content {
    content(Backend const& backend, token_batch const& batch, config const& shape_)
        : content(backend, batch, shape_, attention_tiling::of<T>(shape_),
                  attention_tiling::with_rows(shape_, attention_tiling::narrow_queries),
                  derived(batch, shape_)) {}

    config shape;
    index_t longest;
    bool overwritten = false;
    on_device<std::int32_t> tokens;
    on_device<index_t> logit_rows;
    on_device<index_t> positions;
    on_device<index_t> first;
    on_device<index_t> sorted;
    placed_blocks blocks;
    placed_blocks narrow_blocks;

   private:
    struct computed {
      std::vector<index_t> positions;
      token_order<std::vector<index_t>> order;
    };
    static computed derived(token_batch const& batch, config const& shape) {
      computed result;
      place_tokens(batch, result.positions);
      sort_by_token(batch.tokens, shape.vocab, result.order);
      return result;
    }
    content(Backend const& backend, token_batch const& batch, config const& shape_,
            attention_tiling const& tiling, attention_tiling const& narrow, computed from)
        : shape(shape_),
          longest(longest_sequence(batch)),
          tokens(backend, batch.tokens),
          logit_rows(backend, batch.logit_rows),
          positions(backend, std::move(from.positions)),
          first(backend, std::move(from.order.first)),
          sorted(backend, std::move(from.order.positions)),
          blocks(backend, batch, tiling.positions(), tiling.rows),
          narrow_blocks(backend, batch, narrow.positions(), attention_tiling::narrow_keys) {}
  };

  std::shared_ptr<content> content_;
};

/// Throws config_error unless the batch was made for a model of this shape.
template <lamina::device_backend Backend>
void check(device_batch<Backend> const& batch, config const& shape) {
  if (!batch || !(batch.shape() == shape)) {
    lamina::throw_config_error("decoder::forward: the batch is ",
                               batch ? "for a model of another shape" : "empty");
  }
}

namespace detail {
template <class Backend>
struct batch_types {
  using given = token_batch;
  using placed = host_batch;
};
template <lamina::device_backend Backend>
struct batch_types<Backend> {
  using given = device_batch<Backend>;
  using placed = device_batch<Backend>;
};
}  // namespace detail

/// What a model over this backend is given, and what it keeps of it.
template <class Backend>
using batch_for = typename detail::batch_types<Backend>::given;
template <class Backend>
using placed_batch = typename detail::batch_types<Backend>::placed;

}  // namespace decoder
