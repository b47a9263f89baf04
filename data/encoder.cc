#include "data/encoder.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "data/tokenizer/special_tokens.h"

namespace osler {

// A model directory may lack a tokenizer, or have one that this build does not know, as long as
// every record holds ready ids; so what went wrong is kept and told to the first record that needs
// text.
struct RecordEncoder::State {
  EncoderOptions options;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;
  int32_t end_of_text = -1;
  absl::Status no_tokenizer, no_template, no_end_of_text;
  std::string digest = "tokens";
  int32_t bos = -1;  // what the tokenizer itself puts before a text, if one token

  absl::Status LoadTemplate(Fs& fs, const std::string& model_directory);
  absl::Status CheckIds(const std::vector<int32_t>& ids, std::string_view what) const;
  absl::Status FindEndOfText(Fs& fs, const std::string& model_directory);
};

namespace {

// Labels are the ids that begin inside a target range. Ranges are in order; begins need not be
// quite.
EncodedRecord WithLabels(Encoding encoding,
                         const std::vector<std::pair<int64_t, int64_t>>& targets) {
  EncodedRecord out;
  out.labels.assign(encoding.ids.size(), kIgnore);
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    const int64_t begin = encoding.begins[i];
    const auto after =
        std::upper_bound(targets.begin(), targets.end(), begin,
                         [](int64_t at, const auto& range) { return at < range.first; });
    if (after != targets.begin() && begin < std::prev(after)->second)
      out.labels[i] = encoding.ids[i];
  }
  out.ids = std::move(encoding.ids);
  return out;
}

std::vector<std::pair<int64_t, int64_t>> TargetsOf(const RenderedChat& chat, Target target) {
  switch (target) {
    case Target::kAll: return {{0, static_cast<int64_t>(chat.text.size())}};
    case Target::kLastTurn:
      if (!chat.turns.empty()) return {chat.turns.back()};
      break;
    case Target::kAssistant: break;
  }
  return chat.turns;
}

absl::StatusOr<EncodedRecord> EncodeTokens(const RecordBody& body) {
  if (body.labels.size() != body.input_ids.size()) {
    return DataError(
        absl::StrCat(body.input_ids.size(), " input_ids but ", body.labels.size(), " labels"));
  }
  for (size_t i = 0; i < body.labels.size(); ++i) {
    if (body.labels[i] < 0 && body.labels[i] != kIgnore) {
      return DataError(
          absl::StrCat("label ", i, " is ", body.labels[i], "; a label is an id or ", kIgnore));
    }
  }
  return EncodedRecord{body.input_ids, body.labels};
}

}  // namespace

absl::Status RecordEncoder::State::CheckIds(const std::vector<int32_t>& ids,
                                            std::string_view what) const {
  const int64_t vocab_size = options.vocab_size;
  for (size_t i = 0; vocab_size > 0 && i < ids.size(); ++i) {
    if ((ids[i] >= 0 || (ids[i] == kIgnore && what == "label")) && ids[i] < vocab_size) continue;
    return DataError(absl::StrCat(
        absl::string_view(what.data(), what.size()), " ", i, " is ", ids[i],
        ", but the model's vocabulary has ", vocab_size, " tokens (0 to ", vocab_size - 1,
        "): tokenizer/vocabulary mismatch; use the tokenizer that belongs "
        "to the model"));
  }
  return absl::OkStatus();
}

absl::Status RecordEncoder::State::FindEndOfText(Fs& fs, const std::string& model_directory) {
  const auto token = SpecialToken(fs, model_directory, "eos_token");
  if (!token.ok()) return Annotate(token.status(), "text records need an end-of-text token");
  end_of_text = tokenizer->IdOf(*token);
  if (end_of_text >= 0) return absl::OkStatus();
  return ConfigError(absl::StrCat(model_directory,
                                  ": eos_token is no token of tokenizer.json, and text records "
                                  "end with it; use the files that belong together"));
}

RecordEncoder::RecordEncoder(std::unique_ptr<State> state) : state_(std::move(state)) {}
RecordEncoder::~RecordEncoder() = default;

// Sets the template and all that chats need from the tokenizer.
absl::Status RecordEncoder::State::LoadTemplate(Fs& fs, const std::string& model_directory) {
  OSLER_ASSIGN_OR_RETURN(auto loaded,
                         ChatTemplate::Load(fs, model_directory, options.chat_template));
  const std::string& end = loaded->end_of_turn();
  if (!end.empty() && tokenizer->IdOf(end) < 0) {
    return ConfigError(absl::StrCat(model_directory, ": the chat template ends turns with ", end,
                                    ", which is no token of its tokenizer.json; use the template "
                                    "that belongs to the tokenizer"));
  }
  OSLER_ASSIGN_OR_RETURN(const Encoding empty, tokenizer->Encode("", SpecialTokens::kAdd));
  if (empty.front == 1) bos = empty.ids[0];
  chat_template = std::move(loaded);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<RecordEncoder>> RecordEncoder::Create(
    Fs& fs, const std::string& model_directory, const EncoderOptions& options) {
  auto state = std::make_unique<State>();
  state->options = options;
  if (model_directory.empty()) {
    state->no_tokenizer =
        ConfigError("chat and text records need a tokenizer: name a model directory");
  } else if (auto tokenizer = Tokenizer::Load(fs, model_directory); !tokenizer.ok()) {
    state->no_tokenizer = Annotate(tokenizer.status(), "chat and text records need a tokenizer");
  } else {
    state->tokenizer = *std::move(tokenizer);
    state->no_end_of_text = state->FindEndOfText(fs, model_directory);
    state->no_template = state->LoadTemplate(fs, model_directory);
    std::string parts = state->tokenizer->digest();
    if (state->chat_template) parts += state->chat_template->digest();
    if (options.target != Target::kAssistant) {
      parts += options.target == Target::kAll ? "all" : "last_turn";
    }
    state->digest = Sha256Hex(parts).substr(0, 32);
  }
  return std::unique_ptr<RecordEncoder>(new RecordEncoder(std::move(state)));
}

absl::StatusOr<EncodedRecord> RecordEncoder::EncodeMessages(const std::vector<Message>& messages,
                                                            bool add_generation_prompt) const {
  OSLER_RETURN_IF_ERROR(state_->no_tokenizer);
  OSLER_RETURN_IF_ERROR(state_->no_template);
  OSLER_ASSIGN_OR_RETURN(const RenderedChat chat,
                         state_->chat_template->Render(messages, add_generation_prompt));
  if (static_cast<int64_t>(chat.text.size()) > kMaxTextBytes)
    return DataError("the chat is longer than 1 GiB");
  OSLER_ASSIGN_OR_RETURN(Encoding encoding,
                         state_->tokenizer->Encode(chat.text, SpecialTokens::kNone));
  EncodedRecord out = WithLabels(std::move(encoding), TargetsOf(chat, state_->options.target));
  if (state_->bos >= 0 && out.ids.size() > 1 && out.ids[0] == state_->bos &&
      out.ids[1] == state_->bos) {
    return ConfigError(
        "the chat template writes the token that begins a text twice; take one of them out of it");
  }
  OSLER_RETURN_IF_ERROR(state_->CheckIds(out.ids, "token"));
  return out;
}

absl::StatusOr<EncodedRecord> RecordEncoder::EncodeText(std::string_view text) const {
  OSLER_RETURN_IF_ERROR(state_->no_tokenizer);
  OSLER_RETURN_IF_ERROR(state_->no_end_of_text);
  if (static_cast<int64_t>(text.size()) > kMaxTextBytes)
    return DataError("the text is longer than 1 GiB");
  OSLER_ASSIGN_OR_RETURN(Encoding encoding, state_->tokenizer->Encode(text, SpecialTokens::kAdd));
  EncodedRecord out{std::move(encoding.ids), {}};
  if (encoding.back == 0 || out.ids.back() != state_->end_of_text)
    out.ids.push_back(state_->end_of_text);
  out.labels = out.ids;
  std::fill_n(out.labels.begin(), encoding.front, kIgnore);
  OSLER_RETURN_IF_ERROR(state_->CheckIds(out.ids, "token"));
  return out;
}

absl::StatusOr<EncodedRecord> RecordEncoder::Encode(const CleanRecord& record) const {
  const bool tokens = record.body().is_tokens();
  auto out = tokens ? EncodeTokens(record.body())
             : record.body().kind() == RecordKind::kText
                 ? EncodeText(record.body().text)
                 : EncodeMessages(record.body().messages, false);
  absl::Status status = out.status();
  if (status.ok() && tokens) {
    status = state_->CheckIds(out->ids, "token");
    if (status.ok()) status = state_->CheckIds(out->labels, "label");
  }
  // What is wrong with the model directory is not this record's fault.
  if (ExitCodeOf(status) == ExitCode::kConfig) return status;
  if (!status.ok()) return Annotate(status, absl::StrCat("record ", record.id()));
  return out;
}

const Tokenizer* RecordEncoder::tokenizer() const { return state_->tokenizer.get(); }
const std::string& RecordEncoder::digest() const { return state_->digest; }

}  // namespace osler
