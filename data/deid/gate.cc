#include "data/deid/gate.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
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

absl::Status At(const Origin& origin, const absl::Status& status) {
  return Annotate(status, absl::StrCat(origin.file, ":", origin.line));
}

// What a body must hold whatever made the record.
absl::Status CheckBody(const RawRecord& raw) {
  const RecordBody& body = raw.body;
  if (body.is_tokens() && !body.messages.empty())
    return DataError("record has both messages and input_ids");
  if (!body.is_tokens() && body.messages.empty())
    return DataError("record has neither messages nor input_ids");
  if (!body.is_tokens()) return absl::OkStatus();
  if (body.labels.size() != body.input_ids.size())
    return DataError("labels and input_ids differ in length");
  if (raw.trusted) return absl::OkStatus();
  return DataError(
      "token ids cannot be searched for identifiers: only a trusted source may bring them");
}

}  // namespace

struct DeidGate::State {
  explicit State(Redactor r) : redactor(std::move(r)) {}

  absl::Status Redact(const RawRecord& raw, std::vector<Message>& messages, RuleCounts& found);

  Redactor redactor;
  RuleCounts counts;
  int64_t records = 0;
  int64_t record_codes = 0;
  std::unordered_map<std::string, std::string> subject_codes;
};

DeidGate::DeidGate(std::unique_ptr<State> state) : state_(std::move(state)) {}
DeidGate::~DeidGate() = default;

absl::StatusOr<std::unique_ptr<DeidGate>> DeidGate::Create(const config::Deid& policy) {
  if (policy.profile() != config::SAFE_HARBOR)
    return ConfigError("deid.profile: only safe_harbor is known");
  OSLER_ASSIGN_OR_RETURN(Redactor redactor, Redactor::Create(SafeHarborRules()));
  auto state = std::make_unique<State>(std::move(redactor));
  state->counts["id"] = 0;
  for (const RuleSpec& rule : state->redactor.rules()) state->counts[rule.name] = 0;
  return std::unique_ptr<DeidGate>(new DeidGate(std::move(state)));
}

absl::Status DeidGate::State::Redact(const RawRecord& raw, std::vector<Message>& messages,
                                     RuleCounts& found) {
  OSLER_ASSIGN_OR_RETURN(const KnownMatcher known,
                         KnownMatcher::Create(raw.known, {raw.id, raw.subject}));
  for (size_t i = 0; i < messages.size(); ++i) {
    auto redacted = redactor.Redact(messages[i].content, known);
    if (!redacted.ok()) return Annotate(redacted.status(), absl::StrCat("message ", i + 1));
    messages[i].content = std::move(redacted->text);
    for (const auto& [rule, count] : redacted->counts) found[rule] += count;
  }
  return absl::OkStatus();
}

absl::StatusOr<CleanRecord> DeidGate::Pass(RawRecord raw) {
  if (absl::Status status = CheckBody(raw); !status.ok()) return At(raw.origin, status);
  if (raw.trusted) {
    ++state_->records;
    return CleanRecord(std::move(raw.id), std::move(raw.subject), std::move(raw.body));
  }
  RuleCounts found;
  if (absl::Status status = state_->Redact(raw, raw.body.messages, found); !status.ok()) {
    return At(raw.origin, status);
  }
  for (const auto& [rule, count] : found) state_->counts[rule] += count;
  ++state_->records;
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
  for (const RuleSpec& rule : state_->redactor.rules()) {
    add(absl::StrCat(rule.name, " ", rule.version));
    for (const std::string& pattern : rule.patterns) add(pattern);
  }
  return digest.Hex();
}

}  // namespace osler
