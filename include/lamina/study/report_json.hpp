// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A report as JSON: every number with all its digits, every raw score, all provenance.
#pragma once

#include "lamina/study/detail/report_text.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

inline std::string quote_json(std::string_view text) {
  return '"' +
         escaped(text,
                 [](char c) -> char const* {
                   switch (c) {
                     case '"': return "\\\"";
                     case '\\': return "\\\\";
                     case '\n': return "\\n";
                     case '\r': return "\\r";
                     case '\t': return "\\t";
                     default: return nullptr;
                   }
                 }) +
         '"';
}

// Builds one JSON text, two spaces a level; commas and indentation follow from the calls.
class json_writer {
 public:
  json_writer& key(std::string_view name) {
    separate();
    text_ += quote_json(name) + ": ";
    after_key_ = true;
    return *this;
  }
  void value(std::string_view text) { put(quote_json(text)); }
  void value(char const* text) { put(quote_json(text)); }
  void value(double number) { put(is_finite(number) ? exact_text(number) : "null"); }
  void value(index_t number) { put(std::to_string(number)); }
  void value(std::uint64_t number) { put(std::to_string(number)); }
  void value(bool truth) { put(truth ? "true" : "false"); }
  void null() { put("null"); }
  void begin(char bracket) {
    put(std::string(1, bracket));
    ++depth_;
    first_ = true;
  }
  void end(char bracket) {
    --depth_;
    if (!first_) new_line();
    text_ += bracket;
    first_ = false;
  }
  template <class Range>
  void list(Range const& range) {
    begin('[');
    for (auto const& element : range) value(element);
    end(']');
  }
  std::string take() { return std::move(text_) + "\n"; }

 private:
  void put(std::string const& text) {
    if (!after_key_) separate();
    after_key_ = false;
    text_ += text;
  }
  void separate() {
    if (depth_ == 0) return;
    if (!first_) text_ += ',';
    new_line();
    first_ = false;
  }
  void new_line() { text_ += '\n' + std::string(2 * depth_, ' '); }

  std::string text_;
  std::size_t depth_ = 0;
  bool first_ = true;
  bool after_key_ = false;
};

inline void json_estimate(json_writer& json, char const* name, double value, double error) {
  json.key(name).begin('{');
  json.key("mean").value(value);
  json.key("standard_error").value(error);
  json.end('}');
}

inline void json_summary(json_writer& json, contribution_profile const& profile) {
  contribution_scale const& scale = profile.scale;
  json_estimate(json, "base_score", scale.base_score(), scale.base_score_error());
  json_estimate(json, "full_score", scale.full_score(), scale.full_score_error());
  json_estimate(json, "gain", scale.gain(), scale.gain_error());
  json.key("measurable").value(scale.measurable());
  json.key("refusal");
  scale.measurable() ? json.null() : json.value(scale.refusal());
  json.key("contributions_by_layer").list(profile.contributions_by_layer());
  json.key("best_layer");
  if (profile.best.layer < 0) {
    json.null();
  } else {
    json.begin('{');
    json.key("layer").value(profile.best.layer);
    json.key("contribution").value(profile.best.apparent);
    json.key("selection_corrected").value(profile.best.corrected);
    json.key("folds").value(profile.best.fold_count);
    json.key("agreeing_folds").value(profile.best.agreeing_folds);
    json.end('}');
  }
  json.key("rank_agreement").begin('{');
  json.key("mean_spearman").value(profile.rank_agreement.mean);
  json.key("minimum_spearman").value(profile.rank_agreement.minimum);
  json.end('}');
}

inline void json_runs(json_writer& json, sweep_report const& report, index_t variant) {
  json.key("runs").begin('[');
  for (run_result const& run : report.results.runs) {
    if (run.variant != variant) continue;
    json.begin('{');
    json.key("base").value(run.base);
    json.key("seed").value(run.seed);
    json.key("score").value(run.score);
    json.key("extras").begin('{');
    for (named_number const& extra : run.extras) json.key(extra.name).value(extra.value);
    json.end('}');
    json.end('}');
  }
  json.end(']');
}

inline void json_variant(json_writer& json, sweep_report const& report, std::size_t v) {
  sweep_variant const& variant = report.results.plan.variants[v];
  contribution const& measured = report.contributions[v];
  json.begin('{');
  json.key("name").value(variant.name);
  json.key("kind").value(name_of(variant.kind));
  json.key("layer");
  variant.kind == variant_kind::layer ? json.value(variant.layer) : json.null();
  json.key("trained").value(variant.trained);
  json.key("learning_rate").value(variant.learning_rate);
  json.key("steps").value(variant.steps);
  json.key("notes").value(variant.notes);
  json.key("score").value(measured.score);
  json.key("score_standard_error").value(measured.score_error);
  json.key("contribution").value(measured.value);
  json.key("contribution_standard_error").value(measured.standard_error);
  json.key("contribution_interval").begin('[');
  json.value(measured.confidence.low);
  json.value(measured.confidence.high);
  json.end(']');
  json.key("contribution_by_base").list(measured.by_base);
  json_runs(json, report, static_cast<index_t>(v));
  json.end('}');
}

}  // namespace detail

/// The report as JSON (RFC 8259, UTF-8, keys in a fixed order, trailing newline). Numbers are the
/// shortest text that reads back to the same double; what is not finite is null.
inline std::string json_report(sweep_report const& report) {
  detail::json_writer json;
  sweep_plan const& plan = report.results.plan;
  json.begin('{');
  json.key("format").value("lamina sweep report");
  json.key("format_version").value(index_t{1});
  json.key("lamina_version").value(version);
  json.key("title").value(report.title);
  json.key("settings").begin('[');
  for (report_setting const& setting : report.settings) {
    json.begin('{');
    json.key("key").value(setting.key);
    json.key("value").value(setting.value);
    json.end('}');
  }
  json.end(']');
  json.key("sweep_settings").value(plan.settings);
  json.key("bases").value(plan.bases);
  json.key("seeds").list(plan.seeds);
  json.key("interval").begin('{');
  json.key("confidence").value(report.options.bootstrap.confidence);
  json.key("resamples").value(report.options.bootstrap.resamples);
  json.key("bootstrap_seed").value(report.options.bootstrap.seed);
  json.key("noise_multiple").value(report.options.noise_multiple);
  json.key("base_score_error").value(report.options.base_score_error);
  json.end('}');
  detail::json_summary(json, report.profile);
  json.key("variants").begin('[');
  for (std::size_t v = 0; v < plan.variants.size(); ++v) detail::json_variant(json, report, v);
  json.end(']');
  json.key("caveats").list(report.profile.caveats);
  json.key("notes").list(report.notes);
  json.end('}');
  return json.take();
}

LAMINA_NAMESPACE_END
