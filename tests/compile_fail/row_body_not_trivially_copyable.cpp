// expect: is_trivially_copyable
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <vector>

#include "lamina/core/lanes.hpp"
#include "lamina/core/view.hpp"

struct fill_rows {
#ifdef LAMINA_FIXED
  lamina::vector_view<float> values;
#else
  std::vector<float> values;
#endif
  template <lamina::lane_group Lanes>
  void operator()(Lanes, lamina::index_t row) const {
    static_cast<void>(values.data[row]);
  }
};

void run(fill_rows const& body) { lamina::host_rows<>{}.run(4, body); }
