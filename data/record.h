// Records on both sides of the de-identification gate.
//
// A RawRecord may hold identifiers. It lives only between a source and the gate: it cannot be
// copied, printed or written, and no shard, trainer or message accepts one. A CleanRecord can be
// made only by DeidGate and by a reader of certified shards; everything downstream takes
// CleanRecord. The compiler holds both rules.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace osler {

struct Message {
  std::string role;  // "system", "user", "assistant"
  std::string content;
  bool operator==(const Message&) const = default;
};

enum class RecordKind : uint32_t { kChat = 1, kTokens = 2, kText = 3 };  // as in shard files

// What a record carries: chat messages, or ready token ids, or one plain text all of which is
// learnt; never two of them.
struct RecordBody {
  std::vector<Message> messages;
  std::vector<int32_t> input_ids;
  std::vector<int32_t>
      labels;  // same length as input_ids; labels[t] speaks of token t; -100: not a target
  std::string text;
  RecordKind kind() const {
    if (!input_ids.empty()) return RecordKind::kTokens;
    return text.empty() ? RecordKind::kChat : RecordKind::kText;
  }
  bool is_tokens() const { return kind() == RecordKind::kTokens; }
  bool operator==(const RecordBody&) const = default;
};

// Where a record came from, for messages. Holds no record text.
struct Origin {
  std::string file;
  int64_t line = 0;    // where it begins, from 1
  int64_t record = 0;  // from 1, in files where lines do not tell records apart; else 0
};

// "FILE:LINE", or "FILE:LINE: record N".
std::string PlaceOf(const Origin& origin);

// Identifiers of the record's own subject that the source states, for exact removal from the text.
struct KnownIdentifiers {
  std::vector<std::string> names;  // known.name
  std::vector<std::pair<std::string, std::string>>
      others;  // (kind, value): known.id and any other kind
};

struct RawRecord {
  RawRecord() = default;
  RawRecord(RawRecord&&) = default;
  RawRecord& operator=(RawRecord&&) = default;
  RawRecord(const RawRecord&) = delete;
  RawRecord& operator=(const RawRecord&) = delete;

  std::string id,
      subject;  // as the source wrote them: may identify, never leave the gate unless trusted
  RecordBody body;
  KnownIdentifiers known;
  Origin origin;
  bool trusted = false;  // the build's configuration vouches for the source
};

// De-identified: safe to store, train on and print on request.
class CleanRecord {
 public:
  const std::string& id() const { return id_; }
  const std::string& subject() const { return subject_; }
  const RecordBody& body() const { return body_; }

 private:
  friend class DeidGate;
  friend class ShardReader;
  CleanRecord(std::string id, std::string subject, RecordBody body)
      : id_(std::move(id)), subject_(std::move(subject)), body_(std::move(body)) {}

  std::string id_, subject_;
  RecordBody body_;
};

}  // namespace osler
