#include "trainer/generate/batch.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/philox.h"
#include "base/status_macros.h"
#include "kernels/linear.h"

namespace osler {
namespace {

// Tokens of one prefill pass: enough to keep the matrix products busy, few enough to bound the
// memory of a long prompt.
constexpr size_t kPrefillTokens = 2048;

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

std::span<const double> Row(const at::Tensor& logits_RV, int64_t row) {
  const int64_t width = logits_RV.size(1);
  return {logits_RV.const_data_ptr<double>() + row * width, static_cast<size_t>(width)};
}

double LogProbOf(std::span<const double> logits, int32_t id) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit - largest);
  return logits[static_cast<size_t>(id)] - largest - std::log(sum);
}

}  // namespace

GenerationBatch::GenerationBatch(const Model& model, ParameterStore& store,
                                 std::span<const std::vector<int32_t>> prompts,
                                 const GenerationOptions& options, GenerationListener& listener)
    : model_(model),
      store_(store),
      prompts_(prompts),
      options_(options),
      listener_(listener),
      walk_(Walk::Alone(model, store, {})),
      slots_(static_cast<size_t>(std::min<int64_t>(
          options.batch,
          std::max<int64_t>(1, static_cast<int64_t>(prompts.size()) * options.samples)))),
      cache_(model, static_cast<int64_t>(slots_.size())) {}

int64_t GenerationBatch::Limit(size_t prompt) const {
  return std::min(options_.max_new_tokens,
                  model_.max_positions - static_cast<int64_t>(prompts_[prompt].size()));
}

std::vector<GenerationBatch::Entry> GenerationBatch::Admit() {
  std::vector<Entry> entries;
  for (size_t slot = 0; slot < slots_.size() && next_.prompt < prompts_.size(); ++slot) {
    if (slots_[slot]) continue;
    if (entries.empty() || entries.back().prompt != next_.prompt)
      entries.push_back({next_.prompt, {}});
    entries.back().slots.push_back(static_cast<int64_t>(slot));
    slots_[slot] = Sequence{next_, {}};
    ++running_;
    if (++next_.sample == options_.samples) next_ = {next_.prompt + 1, 0};
  }
  return entries;
}

absl::Status GenerationBatch::Step() {
  const std::vector<Entry> entries = Admit();
  const auto length = [this](const Entry& entry) { return prompts_[entry.prompt].size(); };
  for (size_t from = 0; from < entries.size();) {
    const auto begin = Clock::now();
    size_t to = from + 1, tokens = length(entries[from]);
    if (tokens > kPrefillTokens) {
      OSLER_RETURN_IF_ERROR(PrefillLong(entries[from]));
    } else {
      while (to < entries.size() && tokens + length(entries[to]) <= kPrefillTokens)
        tokens += length(entries[to++]);
      OSLER_RETURN_IF_ERROR(Prefill({&entries[from], to - from}));
    }
    stats_.prefill_seconds += Since(begin);
    from = to;
  }
  return running_ > 0 ? Decode() : absl::OkStatus();
}

absl::Status GenerationBatch::Prefill(std::span<const Entry> entries) {
  std::vector<SlabCache::Segment> segments;
  std::vector<int64_t> last_rows;
  int64_t tokens = 0;
  for (const Entry& entry : entries) {
    segments.push_back({entry.slots, 0, prompts_[entry.prompt]});
    tokens += static_cast<int64_t>(prompts_[entry.prompt].size());
    last_rows.push_back(tokens - 1);
  }
  const at::Tensor logits_RV = Logits(cache_.Prefill(segments), last_rows);
  stats_.prompt_tokens += tokens;
  for (size_t i = 0; i < entries.size(); ++i) {
    for (const int64_t slot : entries[i].slots)
      OSLER_RETURN_IF_ERROR(Advance(slot, Row(logits_RV, static_cast<int64_t>(i))));
  }
  return absl::OkStatus();
}

absl::Status GenerationBatch::PrefillLong(const Entry& entry) {
  const std::vector<int32_t>& prompt = prompts_[entry.prompt];
  at::Tensor logits_RV;
  for (size_t start = 0; start < prompt.size(); start += kPrefillTokens) {
    const size_t end = std::min(start + kPrefillTokens, prompt.size());
    const auto at = [&](size_t i) { return prompt.begin() + static_cast<ptrdiff_t>(i); };
    const SlabCache::Segment segment{
        entry.slots, static_cast<int64_t>(start), {at(start), at(end)}};
    const SequenceInputs inputs = cache_.Prefill({&segment, 1});
    logits_RV = end < prompt.size() ? at::Tensor()
                                    : Logits(inputs, {static_cast<int64_t>(end - start) - 1});
    if (end < prompt.size()) walk_.Hidden(inputs);
    stats_.prompt_tokens += static_cast<int64_t>(end - start);
  }
  for (const int64_t slot : entry.slots) OSLER_RETURN_IF_ERROR(Advance(slot, Row(logits_RV, 0)));
  return absl::OkStatus();
}

absl::Status GenerationBatch::Decode() {
  const auto begin = Clock::now();
  std::vector<SlabCache::Row> rows;
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (!slots_[slot]) continue;
    const Sequence& sequence = *slots_[slot];
    const size_t seen = prompts_[sequence.id.prompt].size() + sequence.generated.ids.size();
    rows.push_back({static_cast<int64_t>(slot), static_cast<int64_t>(seen) - 1,
                    sequence.generated.ids.back()});
  }
  const at::Tensor logits_RV = Logits(cache_.Decode(rows), {});
  for (size_t i = 0; i < rows.size(); ++i)
    OSLER_RETURN_IF_ERROR(Advance(rows[i].slot, Row(logits_RV, static_cast<int64_t>(i))));
  stats_.decoded_tokens += static_cast<int64_t>(rows.size());
  stats_.decode_seconds += Since(begin);
  return absl::OkStatus();
}

// An empty list of rows stands for all of them.
at::Tensor GenerationBatch::Logits(const SequenceInputs& inputs, const std::vector<int64_t>& rows) {
  at::Tensor hidden_RD = walk_.Hidden(inputs);
  if (!rows.empty()) {
    std::vector<int64_t> index = rows;
    hidden_RD = at::index_select(
        hidden_RD, 0, at::from_blob(index.data(), {static_cast<int64_t>(index.size())}, at::kLong));
  }
  return Linear(hidden_RD, store_.slot(model_.head_slot).local, {}).to(at::kDouble).contiguous();
}

int32_t GenerationBatch::Choose(const SequenceId& id, int64_t made,
                                std::span<const double> logits) const {
  std::vector<double> masked;
  if (made < options_.min_new_tokens) {
    masked.assign(logits.begin(), logits.end());
    for (const int32_t end : options_.end_ids) {
      if (static_cast<size_t>(end) < masked.size())
        masked[static_cast<size_t>(end)] = -std::numeric_limits<double>::infinity();
    }
    logits = masked;
  }
  const uint64_t key =
      PhiloxKey(options_.seed, absl::StrCat("generate/", id.prompt, "/", id.sample));
  return Pick(Candidates(logits, options_.sampling),
              PhiloxUniform(key, static_cast<uint64_t>(made)));
}

absl::Status GenerationBatch::Advance(int64_t slot, std::span<const double> logits) {
  Sequence& sequence = *slots_[static_cast<size_t>(slot)];
  std::vector<int32_t>& ids = sequence.generated.ids;
  const auto made = static_cast<int64_t>(ids.size());
  if (!std::all_of(logits.begin(), logits.end(), [](double x) { return std::isfinite(x); })) {
    return ConfigError(absl::StrCat("the model's output is not a number after ", made,
                                    " new tokens of prompt ", sequence.id.prompt + 1,
                                    ": its weights are damaged or overflow in this precision"));
  }
  const int32_t token = Choose(sequence.id, made, logits);
  ids.push_back(token);
  if (options_.log_probs == LogProbs::kChosen)
    sequence.generated.log_probs.push_back(LogProbOf(logits, token));

  const auto& ends = options_.end_ids;
  if (std::find(ends.begin(), ends.end(), token) != ends.end()) {
    sequence.generated.finish = Finish::kEnd;
  } else if (listener_.OnToken(sequence.id, token) == GenerationListener::Verdict::kStop) {
    sequence.generated.finish = Finish::kStop;
  } else if (made + 1 < Limit(sequence.id.prompt)) {
    return absl::OkStatus();
  }
  Sequence done = std::move(sequence);
  slots_[static_cast<size_t>(slot)].reset();
  --running_;
  return listener_.OnDone(done.id, std::move(done.generated));
}

}  // namespace osler
