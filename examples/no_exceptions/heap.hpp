// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How often the program has asked the global heap for memory.
#pragma once

namespace engine {

long heap_allocation_count();

}  // namespace engine
