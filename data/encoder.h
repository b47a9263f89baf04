// From a clean record to token ids and labels: what training learns from.
//
// Token records pass as they are. Text records get the tokenizer's own special tokens and end with
// the end-of-text token; all of it is learnt. Chat records go through the model directory's
// template and tokenizer; BOS comes from the template alone; labels are the ids where the template
// says "target", -100 elsewhere.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/fs.h"
#include "data/record.h"
#include "data/tokenizer/chat_template.h"
#include "data/tokenizer/tokenizer.h"

namespace osler {

inline constexpr int32_t kIgnore = -100;

struct EncodedRecord {
  std::vector<int32_t> ids, labels;  // equal lengths; labels unshifted
};

// Immutable and thread-safe.
class RecordEncoder {
 public:
  // `model_directory` may be empty, or lack a tokenizer or have one this build does not know: token
  // records are encoded all the same, and the first chat record is a config error that says what is
  // missing. Ids outside [0, vocab_size) are data errors when vocab_size > 0.
  static absl::StatusOr<std::unique_ptr<RecordEncoder>> Create(Fs& fs,
                                                               const std::string& model_directory,
                                                               int64_t vocab_size = 0);
  ~RecordEncoder();
  // Errors name the record and the position, never text.
  absl::StatusOr<EncodedRecord> Encode(const CleanRecord& record) const;
  absl::StatusOr<EncodedRecord> EncodeMessages(const std::vector<Message>& messages,
                                               bool add_generation_prompt) const;
  // A text record: what the tokenizer puts before a text (labels -100), the text, what it puts
  // behind it, and eos_token of tokenizer_config.json unless that stands there already.
  absl::StatusOr<EncodedRecord> EncodeText(std::string_view text) const;
  const Tokenizer* tokenizer() const;  // null without a usable tokenizer
  // Names the sidecar of lengths: 32 hex digits over tokenizer and template; "tokens" without a
  // usable tokenizer.
  const std::string& digest() const;

 private:
  struct State;
  explicit RecordEncoder(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace osler
