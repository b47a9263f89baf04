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

// What a record carries: either chat messages or ready token ids, never both.
struct RecordBody {
  std::vector<Message> messages;
  std::vector<int32_t> input_ids;
  std::vector<int32_t>
      labels;  // same length as input_ids; labels[t] speaks of token t; -100: not a target
  bool is_tokens() const { return !input_ids.empty(); }
  bool operator==(const RecordBody&) const = default;
};

// Where a record came from, for messages: file and 1-based line. Holds no record text.
struct Origin {
  std::string file;
  int64_t line = 0;
};

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
