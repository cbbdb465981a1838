// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The journal of a sweep: one checked line for every finished run, on disk before it counts, read
// back when the sweep is resumed.
#pragma once

#include "lamina/io/atomic_file.hpp"
#include "lamina/study/sweep_plan.hpp"

LAMINA_NAMESPACE_BEGIN

/// Finished runs of one sweep, as its journal has them.
///
/// The first line names the format, lamina's version and the settings; each further line is a run.
/// Lines are records (encode_record): tab-separated, with a checksum. Runs that a plan does not
/// have are kept and ignored.
///
/// Only a last line without a newline, which a kill in the middle of a write leaves, is dropped;
/// anything else that is not as written is an error.
class journal_runs {
 public:
  /// Takes the content of a journal apart.
  ///
  /// path      for messages
  /// content   of the file
  /// settings  what the journal must have been written under
  /// Throws format_error with file, line, what was found and expected if the content is damaged, of
  /// another version or of other settings.
  journal_runs(std::string path, std::string_view content, std::string const& settings)
      : path_(std::move(path)) {
    std::size_t const first_end = content.find('\n');
    check_header(content.substr(0, first_end), settings);
    if (first_end == std::string_view::npos) fail(1, "the line has no end");
    std::size_t line = 2;
    std::size_t begin = first_end + 1;
    for (std::size_t end = 0; (end = content.find('\n', begin)) != std::string_view::npos; ++line) {
      entries_.push_back(read_entry(content.substr(begin, end - begin), line));
      begin = end + 1;
    }
    whole_size_ = begin;
    check_unique();
  }

  /// Bytes of the whole lines.
  std::size_t whole_size() const noexcept { return whole_size_; }

  /// Fills in the result of a run if the journal has it. Throws format_error if it was made by
  /// another definition of the variant.
  bool find(sweep_variant const& variant, run_result& run) const {
    for (entry const& finished : entries_) {
      if (finished.variant != variant.name || finished.result.base != run.base ||
          finished.result.seed != run.seed) {
        continue;
      }
      std::string const expected = detail::definition_of(variant);
      if (finished.definition != expected) {
        fail(finished.line,
             detail::join("variant '", variant.name, "' was run as \"", finished.definition,
                          "\", this sweep has \"", expected, "\""));
      }
      index_t const index = run.variant;
      run = finished.result;
      run.variant = index;
      return true;
    }
    return false;
  }

  /// The first line of a journal written under these settings.
  static std::string header(std::string const& settings) {
    return encode_record({magic, format, version, hex_text(fnv1a_64(settings)), settings});
  }

  /// Throws the format_error of a file that is no journal.
  [[noreturn]] static void refuse(std::string const& path) {
    throw_format_error("run_sweep: journal '", path, "' line 1: this is not a sweep journal; ",
                       "expected '", magic, "'");
  }
  /// Whether a file that begins like this may be one.
  static bool may_be(std::string_view content) noexcept {
    std::string_view const mark = magic;
    std::size_t const known = (std::min)(content.size(), mark.size());
    return content.substr(0, known) == mark.substr(0, known);
  }

 private:
  struct entry {
    std::size_t line = 0;
    std::string variant;
    std::string definition;
    run_result result;
  };

  static constexpr char const* magic = "lamina sweep journal";
  static constexpr char const* format = "1";

  [[noreturn]] void fail(std::size_t line, std::string const& what) const {
    throw_format_error("run_sweep: journal '", path_, "' line ", line, ": ", what);
  }

  void check_header(std::string_view line, std::string const& settings) const {
    std::vector<std::string> fields;
    if (line.substr(0, std::string_view(magic).size()) != magic) refuse(path_);
    if (!decode_record(line, fields)) fail(1, "the checksum does not match the line");
    if (fields.size() < 3 || fields[1] != format) {
      fail(1, detail::join("format version is '", fields.size() > 1 ? fields[1] : std::string(),
                           "', expected '", format, "'"));
    }
    if (fields[2] != version) {
      fail(1, detail::join("written by lamina ", fields[2], ", this is lamina ", version,
                           "; results of different versions cannot be mixed"));
    }
    if (fields.size() != 5) fail(1, detail::join("has ", fields.size(), " fields, expected 5"));
    if (fields[3] != hex_text(fnv1a_64(settings)) || fields[4] != settings) {
      fail(1, "other settings: " + first_difference(fields[4], settings));
    }
  }

  // Both texts around the place where they part.
  static std::string first_difference(std::string const& found, std::string const& expected) {
    std::size_t const shorter = (std::min)(found.size(), expected.size());
    auto const parted = std::mismatch(
        found.begin(), found.begin() + static_cast<std::ptrdiff_t>(shorter), expected.begin());
    std::size_t const at = static_cast<std::size_t>(parted.first - found.begin());
    std::size_t const begin = at < 30 ? 0 : at - 30;
    return detail::join("the journal has \"", found.substr(begin, 80), "\", this sweep has \"",
                        expected.substr(begin, 80), "\" (they part at character ", at, ")");
  }

  entry read_entry(std::string_view text, std::size_t line) const {
    std::vector<std::string> fields;
    if (!decode_record(text, fields)) fail(line, "the checksum does not match the line");
    entry result;
    result.line = line;
    if (fields.size() < 7 || fields.size() % 2 == 0 || fields[0] != "run") {
      fail(line, detail::join("has ", fields.size(), " fields, expected 'run', 6 more, and pairs"));
    }
    result.variant = fields[2];
    result.definition = fields[4];
    read_number(fields[1], result.result.base, "base", line);
    read_number(fields[3], result.result.seed, "seed", line);
    read_number(fields[5], result.result.score, "score", line);
    read_number(fields[6], result.result.seconds, "seconds", line);
    for (std::size_t i = 7; i < fields.size(); i += 2) {
      named_number extra{fields[i], 0};
      read_number(fields[i + 1], extra.value, fields[i].c_str(), line);
      result.result.extras.push_back(extra);
    }
    return result;
  }

  template <class Number>
  void read_number(std::string const& text, Number& value, char const* what,
                   std::size_t line) const {
    if (!parse_number(text, value)) {
      fail(line, detail::join(what, " is '", text, "', expected a number"));
    }
  }

  void check_unique() const {
    for (std::size_t b = 0; b < entries_.size(); ++b) {
      for (std::size_t a = 0; a < b; ++a) {
        if (entries_[a].variant == entries_[b].variant &&
            entries_[a].result.base == entries_[b].result.base &&
            entries_[a].result.seed == entries_[b].result.seed) {
          fail(entries_[b].line, detail::join("the run is already in line ", entries_[a].line));
        }
      }
    }
  }

  std::string path_;
  std::size_t whole_size_ = 0;
  std::vector<entry> entries_;
};

/// The journal of a sweep in progress: the finished runs of a text file, and a place for more.
class sweep_journal {
 public:
  /// Opens the journal, or starts it.
  ///
  /// resume  false: the file must be absent or empty; true: its runs are taken over
  /// Throws config_error if it holds runs and resume is false; io_error if it cannot be read or
  /// written, or another process writes it; otherwise as journal_runs.
  sweep_journal(std::string const& path, bool resume, std::string const& settings)
      : log_(path), runs_(open(log_, resume, settings)) {}

  /// Fills in the result of a run if the journal has it. Throws as journal_runs::find.
  bool find(sweep_variant const& variant, run_result& run) const {
    return runs_.find(variant, run);
  }

  /// Appends a finished run; when it returns, the run is on disk. Throws io_error.
  void append(sweep_variant const& variant, run_result const& run) {
    std::vector<std::string> fields{"run",
                                    std::to_string(run.base),
                                    variant.name,
                                    std::to_string(run.seed),
                                    detail::definition_of(variant),
                                    exact_text(run.score),
                                    exact_text(run.seconds)};
    for (named_number const& extra : run.extras) {
      fields.push_back(extra.name);
      fields.push_back(exact_text(extra.value));
    }
    log_.append(encode_record(fields));
  }

 private:
  static journal_runs open(append_log& log, bool resume, std::string const& settings) {
    std::string content = log.read();
    std::size_t const first_end = content.find('\n');
    bool const holds_runs =
        first_end != std::string::npos && content.find('\n', first_end + 1) != std::string::npos;
    if (first_end == std::string::npos || (!resume && !holds_runs)) {
      // It holds no run. What a kill left of a header may be overwritten, somebody else's file may
      // not.
      if (!journal_runs::may_be(content)) journal_runs::refuse(log.path());
      if (!content.empty()) log.truncate(0);
      content = journal_runs::header(settings);
      log.append(content);
    } else if (!resume) {
      throw_config_error("run_sweep: journal '", log.path(),
                         "' holds finished runs; resume the sweep to go on with them, or remove "
                         "the file to start anew");
    }
    journal_runs runs(log.path(), content, settings);
    if (runs.whole_size() < content.size()) log.truncate(runs.whole_size());
    return runs;
  }

  append_log log_;
  journal_runs runs_;
};

/// What a journal has of a plan, read without a lock, so also while the sweep goes on.
struct finished_runs {
  /// Variants with at least one finished run on every base; in each, seeds up to the first that is
  /// missing on any base, so that the i-th seed is the same for all.
  sweep_results results;
  /// Runs in results, and runs of the whole plan.
  index_t finished = 0;
  index_t total = 0;

  bool complete() const noexcept { return finished == total; }
};

/// Reads the finished runs of a plan from a journal that was written under the plan's settings.
/// Throws io_error if the file cannot be read, otherwise as run_sweep with such a plan and journal.
inline finished_runs read_finished_runs(sweep_plan const& plan, std::string const& path) {
  detail::check_plan(plan);
  std::string const content = read_file(path);
  journal_runs const journal(path, content, plan.settings);
  std::vector<run_result> const planned = detail::runs_of(plan);
  std::vector<index_t> const places = detail::seed_places(planned);

  finished_runs found{{plan, {}}, 0, static_cast<index_t>(planned.size())};
  found.results.plan.variants.clear();
  for (std::size_t v = 0; v < plan.variants.size(); ++v) {
    std::vector<run_result> runs;
    index_t seeds = found.total;
    for (std::size_t i = 0; i < planned.size(); ++i) {
      run_result run = planned[i];
      if (run.variant != static_cast<index_t>(v) || places[i] >= seeds) continue;
      if (journal.find(plan.variants[v], run)) {
        runs.push_back(std::move(run));
      } else {
        seeds = places[i];
      }
    }
    if (seeds == 0) continue;
    // Earlier bases may have seeds that a later one lacks.
    std::vector<std::size_t> place_of_base(static_cast<std::size_t>(plan.bases));
    index_t const variant = static_cast<index_t>(found.results.plan.variants.size());
    for (run_result& run : runs) {
      auto& place = place_of_base[static_cast<std::size_t>(run.base)];
      if (static_cast<index_t>(place++) >= seeds) continue;
      run.variant = variant;
      found.results.runs.push_back(std::move(run));
    }
    found.results.plan.variants.push_back(plan.variants[v]);
  }
  found.finished = static_cast<index_t>(found.results.runs.size());
  return found;
}

LAMINA_NAMESPACE_END
