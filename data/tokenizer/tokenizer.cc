#include "data/tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/decoder.h"
#include "data/tokenizer/json_part.h"
#include "data/tokenizer/mapped_text.h"
#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/post_processor.h"
#include "data/tokenizer/pre_tokenizer.h"

namespace osler {

struct Tokenizer::State {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe model;
  AddedTokens added;
  PostProcessor post_processor;
  Decoder decoder;
  std::string digest;

  void EncodeStretch(MappedText stretch, Encoding& out) const;
  void EncodeWord(const MappedText& stretch, TextRange word, std::vector<Symbol>& scratch,
                  Encoding& out) const;
};

Tokenizer::Tokenizer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(Fs& fs,
                                                           const std::string& model_directory) {
  const std::string path = JoinPath(model_directory, "tokenizer.json");
  if (!fs.Exists(path)) {
    return ConfigError(
        absl::StrCat(path,
                     " does not exist; name a model directory that has one (in Python, "
                     "AutoTokenizer.from_pretrained(…).save_pretrained(DIR) writes it)"));
  }
  const auto file = fs.Map(path);
  if (!file.ok()) return Reclassify(file.status(), ExitCode::kConfig);
  return Parse((*file)->data(), path);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Parse(std::string_view json,
                                                            const std::string& name) {
  OSLER_ASSIGN_OR_RETURN(const Json document, ParseJson(json, name));
  const JsonPart root{&document, name + ": "};
  OSLER_RETURN_IF_ERROR(
      ExpectObject(root, {"version", "truncation", "padding", "added_tokens", "normalizer",
                          "pre_tokenizer", "post_processor", "decoder", "model"}));
  OSLER_ASSIGN_OR_RETURN(Normalizer normalizer, Normalizer::Parse(root.at("normalizer")));
  OSLER_ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer, PreTokenizer::Parse(root.at("pre_tokenizer")));
  OSLER_ASSIGN_OR_RETURN(PostProcessor post_processor,
                         ParsePostProcessor(root.at("post_processor")));
  OSLER_ASSIGN_OR_RETURN(Decoder decoder, Decoder::Parse(root.at("decoder")));
  OSLER_ASSIGN_OR_RETURN(Bpe model, Bpe::Parse(root.at("model")));
  OSLER_ASSIGN_OR_RETURN(AddedTokens added,
                         AddedTokens::Parse(root.at("added_tokens"), model, normalizer));
  auto state = std::unique_ptr<State>(
      new State{std::move(normalizer), std::move(pre_tokenizer), std::move(model), std::move(added),
                std::move(post_processor), std::move(decoder), Sha256Hex(json)});
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(state)));
}

void Tokenizer::State::EncodeWord(const MappedText& stretch, TextRange word,
                                  std::vector<Symbol>& scratch, Encoding& out) const {
  scratch.clear();
  model.Encode(std::string_view(stretch.text).substr(word.first, word.second - word.first),
               scratch);
  for (const Symbol& symbol : scratch) {
    out.ids.push_back(symbol.id);
    out.begins.push_back(stretch.OriginOf(word.first + symbol.begin));
  }
}

// A stretch between added tokens of the raw text.
void Tokenizer::State::EncodeStretch(MappedText stretch, Encoding& out) const {
  const MappedText text = normalizer.Apply(std::move(stretch));
  std::vector<Symbol> scratch;
  for (const AddedSpan& span : added.Split(text.text, /*normalized=*/true)) {
    if (span.id >= 0) {
      out.ids.push_back(span.id);
      out.begins.push_back(text.OriginOf(span.begin));
      continue;
    }
    const std::string_view part =
        std::string_view(text.text).substr(span.begin, span.end - span.begin);
    for (const auto& [begin, end] : pre_tokenizer.Split(part)) {
      EncodeWord(text, {span.begin + begin, span.begin + end}, scratch, out);
    }
  }
}

Encoding Tokenizer::Encode(std::string_view text, SpecialTokens special) const {
  OSLER_CHECK(text.size() <= static_cast<size_t>(kMaxTextBytes));
  Encoding out;
  const MappedText input = ToMappedText(text);
  if (special == SpecialTokens::kAdd) {
    out.ids = state_->post_processor.front;
    out.front = static_cast<int64_t>(out.ids.size());
    out.begins.assign(out.ids.size(), 0);
  }
  for (const AddedSpan& span : state_->added.Split(input.text, /*normalized=*/false)) {
    if (span.id < 0) {
      state_->EncodeStretch(input.Slice(span.begin, span.end), out);
      continue;
    }
    out.ids.push_back(span.id);
    out.begins.push_back(input.OriginOf(span.begin));
  }
  if (special == SpecialTokens::kAdd) {
    const std::vector<int32_t>& back = state_->post_processor.back;
    out.back = static_cast<int64_t>(back.size());
    out.ids.insert(out.ids.end(), back.begin(), back.end());
    out.begins.resize(out.ids.size(), 0);
  }
  return out;
}

std::string Tokenizer::Decode(const std::vector<int32_t>& ids) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    const std::string* text = state_->added.TextOf(id);
    if (text == nullptr) text = state_->model.TextOf(id);
    if (text != nullptr) tokens.push_back(*text);
  }
  return state_->decoder.Decode(std::move(tokens));
}

int64_t Tokenizer::vocab_size() const {
  return std::max(state_->model.id_bound(), state_->added.id_bound());
}

bool Tokenizer::IsSpecial(int32_t id) const { return state_->added.IsSpecial(id); }

int32_t Tokenizer::IdOf(std::string_view token) const {
  const int32_t id = state_->added.IdOf(token);
  return id >= 0 ? id : state_->model.IdOf(token);
}

const std::string& Tokenizer::digest() const { return state_->digest; }

}  // namespace osler
