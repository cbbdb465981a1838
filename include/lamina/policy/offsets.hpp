// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Offsets of packed ragged arrays: part i is offsets[i] .. offsets[i + 1).
#pragma once

#include "lamina/core/error.hpp"
#include "lamina/core/lanes.hpp"
#include "lamina/core/view.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Throws shape_error unless `offsets`, called `name` in the message, starts at 0 and never falls.
// `parts` is the noun of what is packed.
inline void check_offsets(char const* function, char const* name,
                          vector_view<index_t const> offsets, char const* parts) {
  if (offsets.empty() || offsets[0] != 0) {
    throw_shape_error(function, ": ", name, " has ", offsets.size, " entries; expected [", parts,
                      " + 1] entries that start at 0");
  }
  for (index_t i = 1; i < offsets.size; ++i) {
    if (offsets[i] < offsets[i - 1]) {
      throw_shape_error(function, ": ", name, "[", i, "] is ", offsets[i], ", below ",
                        offsets[i - 1], " before it; expected ascending offsets");
    }
  }
}

// Whether offsets in a device's memory start at 0, ascend and end at `end`, where that is known:
// until then, nobody may follow them. One row.
struct offsets_body {
  static constexpr row_schedule schedule = row_schedule::block;
  vector_view<index_t const> offsets;
  index_t end;        // -1 if it is not known
  index_t* broken;    // entries that make no sense
  bool first = true;  // of the offsets of the call

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t /*row*/) const {
    double wrong = 0;
    for (index_t i = lanes.lane(); i < offsets.size; i += lanes.count()) {
      bool const ascends = i == 0 ? offsets[i] == 0 : offsets[i] >= offsets[i - 1];
      bool const ends = i + 1 < offsets.size || offsets[i] == end || end < 0;
      wrong += ascends && ends ? 0 : 1;
    }
    wrong = lanes.sum(wrong);
    if (lanes.lane() == 0) *broken = (first ? 0 : *broken) + static_cast<index_t>(wrong);
  }
};

}  // namespace detail

LAMINA_NAMESPACE_END
