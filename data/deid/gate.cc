#include "data/deid/gate.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "data/deid/known.h"
#include "data/deid/redactor.h"
#include "data/deid/rules.h"

namespace osler {
namespace {

// Of what lies outside the rule table: shadow, known identifiers, merging, codes.
constexpr int kGateVersion = 1;

// What a body must hold whatever made the record.
absl::Status CheckBody(const RawRecord& raw) {
  const RecordBody& body = raw.body;
  const int kinds = (body.messages.empty() ? 0 : 1) + (body.input_ids.empty() ? 0 : 1) +
                    (body.text.empty() ? 0 : 1);
  if (kinds > 1) return DataError("record has more than one of messages, input_ids and text");
  if (kinds == 0) return DataError("record has neither messages nor input_ids nor text");
  if (!body.is_tokens()) return absl::OkStatus();
  if (body.labels.size() != body.input_ids.size())
    return DataError("labels and input_ids differ in length");
  if (raw.trusted) return absl::OkStatus();
  return DataError(
      "token ids cannot be searched for identifiers: only a trusted source may bring them");
}

}  // namespace

struct DeidGate::State {
  std::vector<Redactor> redactors;  // one a thread, made when first needed
  RuleCounts counts;
  int64_t records = 0;
  int64_t record_codes = 0;
  std::unordered_map<std::string, std::string> subject_codes;
};

namespace {

// Checks and redacts in place: all of the work on a record that other records have no part in.
absl::Status Redact(RawRecord& raw, Redactor& redactor, RuleCounts& found) {
  OSLER_RETURN_IF_ERROR(CheckBody(raw));
  if (raw.trusted) return absl::OkStatus();
  OSLER_ASSIGN_OR_RETURN(const KnownMatcher known,
                         KnownMatcher::Create(raw.known, {raw.id, raw.subject}));
  const auto redact = [&](std::string& text) -> absl::Status {
    OSLER_ASSIGN_OR_RETURN(RedactedText redacted, redactor.Redact(text, known));
    text = std::move(redacted.text);
    for (const auto& [rule, count] : redacted.counts) found[rule] += count;
    return absl::OkStatus();
  };
  if (!raw.body.text.empty()) return Annotate(redact(raw.body.text), "text");
  std::vector<Message>& messages = raw.body.messages;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (absl::Status status = redact(messages[i].content); !status.ok())
      return Annotate(status, absl::StrCat("message ", i + 1));
  }
  return absl::OkStatus();
}

}  // namespace

DeidGate::DeidGate(std::unique_ptr<State> state) : state_(std::move(state)) {}
DeidGate::~DeidGate() = default;

absl::StatusOr<std::unique_ptr<DeidGate>> DeidGate::Create(const config::Deid& policy) {
  if (policy.profile() != config::SAFE_HARBOR)
    return ConfigError("deid.profile: only safe_harbor is known");
  auto state = std::make_unique<State>();
  OSLER_ASSIGN_OR_RETURN(Redactor redactor, Redactor::Create(SafeHarborRules()));
  state->counts["id"] = 0;
  for (const RuleSpec& rule : redactor.rules()) state->counts[rule.name] = 0;
  state->redactors.push_back(std::move(redactor));
  return std::unique_ptr<DeidGate>(new DeidGate(std::move(state)));
}

absl::StatusOr<CleanRecord> DeidGate::Pass(RawRecord raw) {
  std::vector<RawRecord> one;
  one.push_back(std::move(raw));
  return std::move(PassAll(std::move(one), 1).front());
}

std::vector<absl::StatusOr<CleanRecord>> DeidGate::PassAll(std::vector<RawRecord> raws,
                                                           int threads) {
  threads = std::clamp(threads, 1, static_cast<int>(std::max<size_t>(raws.size(), 1)));
  while (state_->redactors.size() < static_cast<size_t>(threads)) {
    auto redactor = Redactor::Create(SafeHarborRules());
    OSLER_CHECK(redactor.ok());  // the first one compiled the same table
    state_->redactors.push_back(*std::move(redactor));
  }
  std::vector<absl::Status> verdicts(raws.size());
  std::vector<RuleCounts> found(raws.size());
  std::atomic<size_t> next = 0;
  const auto work = [&](Redactor& redactor) {
    for (size_t i = next++; i < raws.size(); i = next++)
      verdicts[i] = Redact(raws[i], redactor, found[i]);
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i)
    others.emplace_back(work, std::ref(state_->redactors[static_cast<size_t>(i)]));
  work(state_->redactors[0]);
  for (std::thread& thread : others) thread.join();

  std::vector<absl::StatusOr<CleanRecord>> results;
  results.reserve(raws.size());
  for (size_t i = 0; i < raws.size(); ++i) {
    if (!verdicts[i].ok()) {
      results.push_back(Annotate(verdicts[i], PlaceOf(raws[i].origin)));
    } else {
      results.push_back(Admit(std::move(raws[i]), found[i]));
    }
  }
  return results;
}

CleanRecord DeidGate::Admit(RawRecord raw, const RuleCounts& found) {
  ++state_->records;
  if (raw.trusted)
    return CleanRecord(std::move(raw.id), std::move(raw.subject), std::move(raw.body));
  for (const auto& [rule, count] : found) state_->counts[rule] += count;
  std::string& subject = state_->subject_codes[raw.subject];
  if (subject.empty()) subject = absl::StrFormat("s-%06d", state_->subject_codes.size());
  return CleanRecord(absl::StrFormat("r-%06d", ++state_->record_codes), subject,
                     std::move(raw.body));
}

const RuleCounts& DeidGate::counts() const { return state_->counts; }
int64_t DeidGate::records() const { return state_->records; }

std::string DeidGate::PolicyDigest() const {
  Sha256 digest;
  const auto add = [&](std::string_view text) {
    digest.Update(text);
    digest.Update(std::string_view("\0", 1));
  };
  add("safe_harbor");
  add(absl::StrCat("gate ", kGateVersion));
  add(ZipListText());
  for (const RuleSpec& rule : state_->redactors.front().rules()) {
    add(absl::StrCat(rule.name, " ", rule.version));
    for (const std::string& pattern : rule.patterns) add(pattern);
  }
  return digest.Hex();
}

}  // namespace osler
