#include "data/plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/errors.h"
#include "base/philox.h"
#include "base/status_macros.h"
#include "data/mixture.h"
#include "data/packer.h"

namespace osler {
namespace {

constexpr int64_t kMaxTokens = std::numeric_limits<int32_t>::max();

struct Window {
  std::vector<PackPlan> packs;
  std::vector<int64_t> taken;  // samples of each source after this window
};

// The record at place `at` of a source's endless stream.
class SourceOrder {
 public:
  SourceOrder(const PlanSource& source, const PlanOptions& options)
      : source_(&source), options_(&options) {}
  int64_t Record(int64_t at) {
    const auto size = static_cast<int64_t>(source_->lengths->size());
    if (options_->order == Order::kFile) return at % size;
    if (const int64_t pass = at / size; pass != pass_) {
      pass_ = pass;
      key_ = PhiloxKey(options_->seed, absl::StrCat("shuffle/", source_->digest, "/", pass));
    }
    return static_cast<int64_t>(
        PermuteIndex(key_, static_cast<uint64_t>(at % size), static_cast<uint64_t>(size)));
  }

 private:
  const PlanSource* source_;
  const PlanOptions* options_;
  int64_t pass_ = -1;
  uint64_t key_ = 0;
};

absl::Status CheckWeights(const std::vector<PlanSource>& sources) {
  bool any = false;
  for (size_t k = 0; k < sources.size(); ++k) {
    if (!std::isfinite(sources[k].weight) || sources[k].weight < 0) {
      return ConfigError(
          absl::StrCat("the weight of data source ", k + 1, " must be a number of at least 0"));
    }
    any = any || sources[k].weight > 0;
  }
  if (any) return absl::OkStatus();
  return ConfigError(sources.empty()
                         ? "no data source is given"
                         : "every data source has weight 0: give one a positive weight");
}

// Why a source of so many records gives nothing.
absl::Status NothingToTrainOn(size_t source, int64_t records, int64_t longer,
                              const PlanOptions& options) {
  const std::string what = absl::StrCat("data source ", source + 1);
  if (records == 0)
    return DataError(absl::StrCat(what, " holds no records: there is nothing to train on"));
  if (longer == 0) return DataError(absl::StrCat(what, ": all ", records, " records are empty"));
  return DataError(absl::StrCat(
      what, ": none of its ", records, " records can be used (", longer,
      " are longer than sequence_length ", options.sequence_length,
      " and dropped): raise sequence_length, or set long_records to truncate or split"));
}

}  // namespace

struct Plan::State {
  std::vector<PlanSource> sources;
  PlanOptions options;
  Mixture mixture;
  PlanCounts counts;
  int64_t epoch_samples = 0;
  Cursor cursor;                     // of the next pack
  Window window;                     // that holds it
  std::vector<Cursor> epoch_starts;  // as far as they have been asked for

  State(std::vector<PlanSource> plan_sources, PlanOptions plan_options, Mixture plan_mixture)
      : sources(std::move(plan_sources)), options(plan_options), mixture(std::move(plan_mixture)) {}

  absl::Status Count();
  int64_t Windows() const { return (epoch_samples + kWindowSamples - 1) / kWindowSamples; }
  void AddPieces(int32_t source, int64_t record, std::vector<Piece>* pieces) const;
  Window Build(int64_t epoch, int64_t number, std::vector<int64_t> taken) const;
  void SkipFinished();
  absl::Status CheckFits(const Cursor& wanted) const;
};

absl::Status Plan::State::Count() {
  for (size_t k = 0; k < sources.size(); ++k) {
    const auto records = static_cast<int64_t>(sources[k].lengths->size());
    int64_t kept = 0, longer = 0;
    for (const RecordLength& length : *sources[k].lengths) {
      const int64_t tokens = length.tokens;
      if (tokens > kMaxTokens)
        return DataError(absl::StrCat("data source ", k + 1, " has a record of ", tokens,
                                      " tokens: at most ", kMaxTokens, " are possible"));
      const bool is_long = tokens > options.sequence_length;
      longer += is_long;
      const bool drop = tokens == 0 || (is_long && options.long_records == LongRecordPolicy::kDrop);
      counts.dropped += drop;
      counts.truncated += is_long && options.long_records == LongRecordPolicy::kTruncate;
      counts.split += is_long && options.long_records == LongRecordPolicy::kSplit;
      if (drop) continue;
      ++kept;
      const bool cut = options.long_records == LongRecordPolicy::kTruncate;
      counts.tokens += cut ? std::min(tokens, options.sequence_length) : tokens;
      if (length.last_target == 0) continue;
      const bool lost = cut && length.first_target >= options.sequence_length;
      ++(lost ? counts.cut_off : counts.taught);
    }
    counts.records += records;
    if (sources[k].weight == 0) continue;
    epoch_samples += records;
    if (kept == 0) return NothingToTrainOn(k, records, longer, options);
  }
  return absl::OkStatus();
}

void Plan::State::AddPieces(int32_t source, int64_t record, std::vector<Piece>* pieces) const {
  const int64_t tokens =
      (*sources[static_cast<size_t>(source)].lengths)[static_cast<size_t>(record)].tokens;
  const int64_t limit = options.sequence_length;
  if (tokens > limit && options.long_records == LongRecordPolicy::kDrop) return;
  const int64_t end =
      options.long_records == LongRecordPolicy::kSplit ? tokens : std::min(tokens, limit);
  for (int64_t begin = 0; begin < end; begin += limit) {
    pieces->push_back({source, record, static_cast<int32_t>(begin),
                       static_cast<int32_t>(std::min(limit, end - begin))});
  }
}

Window Plan::State::Build(int64_t epoch, int64_t number, std::vector<int64_t> taken) const {
  std::vector<SourceOrder> orders;
  for (const PlanSource& source : sources) orders.emplace_back(source, options);
  std::vector<Piece> pieces;
  const int64_t samples = std::min(kWindowSamples, epoch_samples - number * kWindowSamples);
  for (int64_t i = 0; i < samples; ++i) {
    const auto source = static_cast<size_t>(mixture.Choose(taken));
    AddPieces(static_cast<int32_t>(source), orders[source].Record(taken[source]++), &pieces);
  }
  Window window{{}, std::move(taken)};
  if (options.packing == Packing::kOff) {
    window.packs = PackSingly(pieces);
  } else if (options.order == Order::kFile) {
    window.packs = PackNextFit(pieces, options.sequence_length);
  } else {
    std::vector<PackPlan> packs = PackBestFit(pieces, options.sequence_length);
    const uint64_t key = PhiloxKey(options.seed, absl::StrCat("packs/", epoch, "/", number));
    for (uint64_t i = 0; i < packs.size(); ++i) {
      window.packs.push_back(std::move(packs[PermuteIndex(key, i, packs.size())]));
    }
  }
  return window;
}

// Moves to the next window that has a pack left. Ends: every source in the mixture holds a usable
// record.
void Plan::State::SkipFinished() {
  while (cursor.pack_in_window >= static_cast<int64_t>(window.packs.size())) {
    cursor.taken = window.taken;
    cursor.pack_in_window = 0;
    if (++cursor.window == Windows()) {
      cursor.window = 0;
      ++cursor.epoch;
    }
    window = Build(cursor.epoch, cursor.window, cursor.taken);
  }
}

absl::Status Plan::State::CheckFits(const Cursor& wanted) const {
  const int64_t samples = std::accumulate(wanted.taken.begin(), wanted.taken.end(), int64_t{0});
  const bool positive =
      wanted.pack >= wanted.pack_in_window && wanted.pack_in_window >= 0 && wanted.epoch >= 0 &&
      wanted.window >= 0 && wanted.window < Windows() &&
      std::all_of(wanted.taken.begin(), wanted.taken.end(), [](int64_t n) { return n >= 0; });
  const __int128 before =
      static_cast<__int128>(wanted.epoch) * epoch_samples + wanted.window * kWindowSamples;
  if (positive && wanted.taken.size() == sources.size() && samples == before &&
      mixture.Fits(wanted.taken)) {
    return absl::OkStatus();
  }
  return DataError(absl::StrCat("the saved position (epoch ", wanted.epoch, ", window ",
                                wanted.window, ", pack ", wanted.pack,
                                ") does not fit this data: it was saved for other data, weights or "
                                "sequence_length; use those again, or start a new run"));
}

Plan::Plan(std::unique_ptr<State> state) : state_(std::move(state)) {}
Plan::~Plan() = default;

absl::StatusOr<std::unique_ptr<Plan>> Plan::Create(std::vector<PlanSource> sources,
                                                   PlanOptions options) {
  OSLER_RETURN_IF_ERROR(CheckWeights(sources));
  if (options.sequence_length < 1 || options.sequence_length > kMaxTokens) {
    return ConfigError(absl::StrCat("data.sequence_length must be between 1 and ", kMaxTokens,
                                    ", not ", options.sequence_length));
  }
  std::vector<double> weights;
  for (const PlanSource& source : sources) weights.push_back(source.weight);
  auto state = std::make_unique<State>(std::move(sources), options, Mixture(weights));
  OSLER_RETURN_IF_ERROR(state->Count());
  state->cursor.taken.assign(state->sources.size(), 0);
  state->epoch_starts.push_back(state->cursor);
  state->window = state->Build(0, 0, state->cursor.taken);
  state->SkipFinished();
  return std::unique_ptr<Plan>(new Plan(std::move(state)));
}

PackPlan Plan::Next() {
  PackPlan pack = state_->window.packs[static_cast<size_t>(state_->cursor.pack_in_window++)];
  ++state_->cursor.pack;
  state_->SkipFinished();
  return pack;
}

Cursor Plan::Position() const { return state_->cursor; }

absl::Status Plan::Seek(const Cursor& cursor) {
  OSLER_RETURN_IF_ERROR(state_->CheckFits(cursor));
  Window window = state_->Build(cursor.epoch, cursor.window, cursor.taken);
  if (cursor.pack_in_window > static_cast<int64_t>(window.packs.size())) {
    return DataError(absl::StrCat(
        "the saved position (epoch ", cursor.epoch, ", window ", cursor.window,
        ") has fewer packs now: it was saved for other data, sequence_length or packing; "
        "use those again, or start a new run"));
  }
  state_->cursor = cursor;
  state_->window = std::move(window);
  state_->SkipFinished();
  return absl::OkStatus();
}

void Plan::SkipTo(int64_t pack) {
  OSLER_CHECK(pack >= state_->cursor.pack);
  while (true) {
    const int64_t left =
        static_cast<int64_t>(state_->window.packs.size()) - state_->cursor.pack_in_window;
    const int64_t step = std::min(left, pack - state_->cursor.pack);
    state_->cursor.pack += step;
    state_->cursor.pack_in_window += step;
    state_->SkipFinished();
    if (state_->cursor.pack == pack) return;
  }
}

Cursor Plan::EpochStart(int64_t epoch) {
  OSLER_CHECK(epoch >= 0);
  std::vector<Cursor>& starts = state_->epoch_starts;
  while (static_cast<int64_t>(starts.size()) <= epoch) {
    Cursor next = starts.back();
    for (int64_t number = 0; number < state_->Windows(); ++number) {
      Window window = state_->Build(next.epoch, number, std::move(next.taken));
      next.pack += static_cast<int64_t>(window.packs.size());
      next.taken = std::move(window.taken);
    }
    ++next.epoch;
    starts.push_back(std::move(next));
  }
  return starts[static_cast<size_t>(epoch)];
}

PlanCounts Plan::counts() const { return state_->counts; }

}  // namespace osler
