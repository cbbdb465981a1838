// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The words and numbers of a report that more than one writer prints.
#pragma once

#include "lamina/study/report.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// A number with `digits` decimals, whatever the locale; never "-0.00". Not finite: "n/a".
inline std::string fixed_text(double value, int digits) {
  if (!is_finite(value)) return "n/a";
  char buffer[352];  // the largest double has 309 digits before the point
  auto const end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed, digits).ptr;
  std::string text(buffer, end);
  if (text[0] == '-' && text.find_first_of("123456789") == std::string::npos) text.erase(0, 1);
  return text;
}

// A short number as people write it: 3e-4, not 3e-04.
inline std::string short_text(double value) {
  std::string text = exact_text(value);
  std::size_t const exponent = text.find('e');
  if (exponent == std::string::npos) return text;
  if (text[exponent + 1] == '+') text.erase(exponent + 1, 1);
  std::size_t const digits = exponent + (text[exponent + 1] == '-' ? 2 : 1);
  while (digits + 1 < text.size() && text[digits] == '0') text.erase(digits, 1);
  return text;
}

// Length of the UTF-8 sequence at `at`, 0 if it is not a valid one.
inline std::size_t utf8_length(std::string_view text, std::size_t at) {
  auto const byte = [&](std::size_t i) -> unsigned {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  unsigned const lead = byte(at);
  if (lead < 0x80) return 1;
  std::size_t const length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xc0u) != 0x80u) return 0;
  }
  unsigned const second = byte(at + 1);  // overlong forms, surrogates, beyond U+10FFFF
  bool const illegal = (lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) ||
                       (lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second > 0x8f);
  return illegal ? 0 : length;
}

// The text with every character passed through `escape(character) -> replacement or nullptr`.
// Bytes that are not UTF-8, and control characters `escape` leaves alone, become U+FFFD.
template <class Escape>
std::string escaped(std::string_view text, Escape const& escape) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t const length = utf8_length(text, at);
    unsigned char const byte = static_cast<unsigned char>(text[at]);
    char const* const replacement = length == 1 ? escape(text[at]) : nullptr;
    if (replacement != nullptr) {
      result += replacement;
    } else if (length == 0 || (length == 1 && (byte < 0x20 || byte == 0x7f))) {
      result += "\xEF\xBF\xBD";
    } else {
      result += text.substr(at, length);
    }
    at += length == 0 ? 1 : length;
  }
  return result;
}

// For text and double-quoted attributes of XML and HTML.
inline std::string escape_xml(std::string_view text) {
  return escaped(text, [](char c) -> char const* {
    switch (c) {
      case '&': return "&amp;";
      case '<': return "&lt;";
      case '>': return "&gt;";
      case '"': return "&quot;";
      case '\'': return "&#39;";
      case '\t':
      case '\n':
      case '\r': return " ";
      default: return nullptr;
    }
  });
}

// "learning rate 3e-4, 60 steps".
inline std::string budget_text(sweep_variant const& variant) {
  if (is_nan(variant.learning_rate)) return "not trained";
  return join("learning rate ", short_text(variant.learning_rate), ", ", variant.steps, " steps");
}

inline std::string interval_text(interval range, int digits) {
  if (is_nan(range.low)) return "n/a";
  return join(fixed_text(range.low, digits), " to ", fixed_text(range.high, digits));
}

inline std::string confidence_text(sweep_report const& report) {
  return short_text(100 * report.options.bootstrap.confidence) + " %";
}

inline std::string score_text(double score, double error) {
  std::string text = fixed_text(score, 3);
  if (!is_nan(error)) text += " \xC2\xB1 " + fixed_text(error, 3);
  return text;
}

inline bool defines_scale(sweep_report const& report, std::size_t variant) {
  index_t const index = static_cast<index_t>(variant);
  return index == report.results.variant_of(variant_kind::base) ||
         index == report.results.variant_of(variant_kind::full);
}

// Names of all extras, in the order they first appear.
inline std::vector<std::string> extra_names(sweep_report const& report) {
  std::vector<std::string> names;
  for (run_result const& run : report.results.runs) {
    for (named_number const& extra : run.extras) {
      if (std::find(names.begin(), names.end(), extra.name) == names.end()) {
        names.push_back(extra.name);
      }
    }
  }
  return names;
}

// Mean of an extra over the runs of a variant that reported it; NaN if none did.
inline double extra_mean(sweep_report const& report, std::size_t variant, std::string_view name) {
  std::vector<double> values;
  for (auto const& seeds : report.results.extras(static_cast<index_t>(variant), name)) {
    for (double value : seeds) {
      if (!is_nan(value)) values.push_back(value);
    }
  }
  return mean(values);
}

// Runs of a variant on each base; a plan gives every base the same seeds.
inline index_t seed_count(sweep_report const& report, std::size_t variant) {
  return static_cast<index_t>(report.results.scores(static_cast<index_t>(variant))[0].size());
}

// The result in words, a sentence each.
inline std::vector<std::string> headline(sweep_report const& report) {
  contribution_profile const& profile = report.profile;
  contribution_scale const& scale = profile.scale;
  std::vector<std::string> sentences;
  sentences.push_back(join("Full training took the score from ", fixed_text(scale.base_score(), 3),
                           " to ", fixed_text(scale.full_score(), 3), " (gain ",
                           score_text(scale.gain(), scale.gain_error()), ")."));
  if (!scale.measurable()) {
    sentences.push_back("No layer contribution is given: " + scale.refusal() + ".");
    return sentences;
  }
  best_layer_estimate const& best = profile.best;
  if (best.layer < 0) return sentences;
  interval const range = profile.layers[static_cast<std::size_t>(best.layer)].confidence;
  std::string text = join("The best single layer is layer ", best.layer,
                          " with C = ", fixed_text(best.apparent, 2));
  if (!is_nan(range.low)) {
    text += join(" (", confidence_text(report), " interval ", interval_text(range, 2), ")");
  }
  sentences.push_back(text + ".");
  if (best.fold_count > 1) {
    sentences.push_back(join("Corrected for choosing the best of many it is ",
                             fixed_text(best.corrected, 2), "; the choice is the same layer in ",
                             best.agreeing_folds, " of ", best.fold_count, " folds."));
  }
  if (!is_nan(profile.rank_agreement.mean)) {
    sentences.push_back(join("The order of the layers repeats between ",
                             scale.base_count() > 1 ? "bases" : "seeds", " with Spearman ",
                             fixed_text(profile.rank_agreement.mean, 2), " on average and ",
                             fixed_text(profile.rank_agreement.minimum, 2), " at least."));
  }
  return sentences;
}

// Tables of the text writers: the same columns everywhere.
struct report_table {
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
};

inline std::vector<std::string> table_row(sweep_report const& report, std::size_t v,
                                          std::vector<std::string> const& extras) {
  sweep_variant const& variant = report.results.plan.variants[v];
  contribution const& measured = report.contributions[v];
  bool const trained = !is_nan(variant.learning_rate);
  bool const defines = defines_scale(report, v) && !is_nan(measured.value);
  bool const remarked = !variant.notes.empty();
  std::vector<std::string> row{
      variant.name,
      remarked ? variant.trained + " (" + variant.notes + ")" : variant.trained,
      trained ? short_text(variant.learning_rate) : std::string("none"),
      std::to_string(variant.steps),
      std::to_string(seed_count(report, v)),
      score_text(measured.score, measured.score_error),
      fixed_text(measured.value, 2),
      defines ? "by definition" : interval_text(measured.confidence, 2)};
  for (std::string const& name : extras) row.push_back(fixed_text(extra_mean(report, v, name), 3));
  return row;
}

// Every variant that is a layer (`layers`), by layer; or every other one, in the plan's order.
inline report_table table_of(sweep_report const& report, bool layers) {
  std::vector<std::string> const extras = extra_names(report);
  report_table table{{"variant", "trained", "learning rate", "steps", "seeds", "score S",
                      "contribution C", confidence_text(report) + " interval of C"},
                     {}};
  for (auto const& extra : extras) table.columns.push_back(extra);
  auto const& variants = report.results.plan.variants;
  std::vector<std::size_t> order;
  for (std::size_t v = 0; v < variants.size(); ++v) {
    if ((variants[v].kind == variant_kind::layer) == layers) order.push_back(v);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return layers && variants[a].layer < variants[b].layer;
  });
  for (std::size_t const v : order) table.rows.push_back(table_row(report, v, extras));
  return table;
}

// What the library itself knows about how the numbers came about.
inline std::vector<report_setting> provenance_of(sweep_report const& report) {
  sweep_plan const& plan = report.results.plan;
  std::string seeds;
  for (std::uint64_t seed : plan.seeds) {
    seeds += (seeds.empty() ? "" : ", ") + std::to_string(seed);
  }
  std::vector<report_setting> all = report.settings;
  all.push_back({"bases", std::to_string(plan.bases)});
  all.push_back({"seeds", seeds});
  all.push_back({"intervals",
                 join(confidence_text(report), ", bootstrap of ",
                      report.options.bootstrap.resamples, " resamples over bases and seeds, seed ",
                      report.options.bootstrap.seed, ", widened for small samples")});
  all.push_back(
      {"refusal rule", join("C is refused unless the gain of full training exceeds ",
                            short_text(report.options.noise_multiple), " of its standard errors")});
  all.push_back({"lamina version", version});
  return all;
}

}  // namespace detail

LAMINA_NAMESPACE_END
