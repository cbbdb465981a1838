// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A memory plan as a table for people.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

#include "lamina/layers/memory_plan.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

inline std::string scaled_text(double value, double base, char const* const (&units)[5]) {
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < 5) {
    value /= base;
    ++unit;
  }
  char buffer[48];
  std::snprintf(buffer, sizeof buffer, "%.*f %s", unit == 0 ? 0 : 2, value, units[unit]);
  return buffer;
}

}  // namespace detail

/// One line an item, aligned: bytes, the peak, operations, and what is gained over `full`. Items
/// that are zero in every plan are left out.
///
/// full  the same step training every tensor, or null for a table of one column
inline std::string to_text(memory_plan const& plan, memory_plan const* full = nullptr) {
  auto const bytes = [](index_t count) {
    return detail::scaled_text(static_cast<double>(count), 1000, {"B", "kB", "MB", "GB", "TB"});
  };
  auto const flop = [](index_t count) {
    return detail::scaled_text(static_cast<double>(count) * 1e-6, 1000, {"M", "G", "T", "P", "E"});
  };
  auto const number = [](index_t count) { return std::to_string(count); };

  std::string text;
  auto const cells = [&text](char const* name, std::string const& first,
                             std::string const& second) {
    text += name;
    text.append(26 - std::string_view(name).size(), ' ');
    text.append(first.size() < 14 ? 14 - first.size() : 1, ' ');
    text += first;
    if (!second.empty()) text.append(second.size() < 14 ? 14 - second.size() : 1, ' ');
    text += second + "\n";
  };
  auto const line = [&](char const* name, auto const& value, auto const& spell) {
    index_t const first = value(plan), second = full != nullptr ? value(*full) : 0;
    if (first == 0 && second == 0) return;
    cells(name, spell(first), full != nullptr ? spell(second) : std::string());
  };
  auto const member = [&](char const* name, index_t memory_plan::*item) {
    line(
        name, [item](memory_plan const& p) { return p.*item; }, bytes);
  };

  cells("", "plan", full != nullptr ? "full" : "");
  line(
      "parameters", [](memory_plan const& p) { return p.parameter_count; }, number);
  line(
      "trained", [](memory_plan const& p) { return p.trained_parameter_count; }, number);
  member("weights", &memory_plan::weights);
  member("gradients", &memory_plan::gradients);
  member("moments", &memory_plan::moments);
  member("masters", &memory_plan::masters);
  member("reference", &memory_plan::reference);
  member("prefix cache", &memory_plan::prefix_cache);
  member("saved activations", &memory_plan::saved_activations);
  member("working activations", &memory_plan::working_activations);
  member("logits", &memory_plan::logits);
  member("activation gradients", &memory_plan::activation_gradients);
  member("rollout cache", &memory_plan::rollout_cache);
  member("rollout activations", &memory_plan::rollout_working);
  line(
      "peak", [](memory_plan const& p) { return p.peak(); }, bytes);
  line(
      "weight sync", [](memory_plan const& p) { return p.weight_sync; }, bytes);
  line(
      "forward FLOP", [](memory_plan const& p) { return p.flops.forward; }, flop);
  line(
      "activation gradient FLOP", [](memory_plan const& p) { return p.flops.activation_gradients; },
      flop);
  line(
      "weight gradient FLOP", [](memory_plan const& p) { return p.flops.weight_gradients; }, flop);
  auto const speed_up = [](memory_plan const& p) {
    char buffer[48];
    std::snprintf(buffer, sizeof buffer, "%.2fx", p.speed_up());
    return std::string(buffer);
  };
  cells("speed-up", speed_up(plan), full != nullptr ? speed_up(*full) : std::string());
  return text;
}

/// Both columns.
inline std::string to_text(memory_plan const& plan, memory_plan const& full) {
  return to_text(plan, &full);
}

LAMINA_NAMESPACE_END
