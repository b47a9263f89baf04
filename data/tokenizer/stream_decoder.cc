#include "data/tokenizer/stream_decoder.h"

#include "absl/strings/match.h"

namespace osler {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

}  // namespace

std::string StreamDecoder::Push(int32_t id) {
  ids_.push_back(id);
  std::string text = tokenizer_.Decode(ids_);
  if (text.size() <= before_.size() || absl::EndsWith(text, kReplacement)) return "";
  std::string piece = text.substr(before_.size());
  ids_.erase(ids_.begin(), ids_.begin() + static_cast<ptrdiff_t>(complete_));
  complete_ = ids_.size();
  before_ = tokenizer_.Decode(ids_);
  return piece;
}

std::string StreamDecoder::Finish() {
  const std::string text = tokenizer_.Decode(ids_);
  std::string piece = text.size() > before_.size() ? text.substr(before_.size()) : "";
  ids_.clear();
  before_.clear();
  complete_ = 0;
  return piece;
}

}  // namespace osler
