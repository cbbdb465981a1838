// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The global heap, counted, so that the program can show that no step of training uses it. In a
// unit of its own, as replacements have to be for compilers to leave them alone.
#include "examples/no_exceptions/heap.hpp"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {
std::atomic<long> count{0};
}

long engine::heap_allocation_count() { return count; }

void* operator new(std::size_t size, std::nothrow_t const&) noexcept {
  ++count;
  return std::malloc(size);
}
void* operator new(std::size_t size) {
  void* const memory = operator new(size, std::nothrow);
  if (memory == nullptr) std::abort();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
