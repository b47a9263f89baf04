#include "trainer/generate/text_stream.h"

#include <algorithm>
#include <string_view>

namespace osler {
namespace {

// The length of the longest end of `text` that begins `stop` without completing it.
size_t Overlap(std::string_view text, std::string_view stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (text.ends_with(stop.substr(0, length))) return length;
  }
  return 0;
}

}  // namespace

size_t TextStream::StopOf(const std::string& text) const {
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, text.find(stop));
  return first;
}

// Gives out all but the last `keep` bytes of what is held.
std::string TextStream::Release(size_t keep) {
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string TextStream::Append(int32_t id) {
  if (tokenizer_.IsSpecial(id)) return "";
  ids_.push_back(id);
  const std::string piece = decoder_.Push(id);
  if (piece.empty()) return "";
  held_ += piece;
  if (const size_t stop = StopOf(held_); stop != std::string::npos) {
    held_.resize(stop);
    stopped_ = true;
    return Release(0);
  }
  size_t keep = 0;
  for (const std::string& stop : stops_) keep = std::max(keep, Overlap(held_, stop));
  return Release(keep);
}

std::string TextStream::Finish() {
  if (!stopped_) {
    held_ += decoder_.Finish();
    if (const size_t stop = StopOf(held_); stop != std::string::npos) held_.resize(stop);
  }
  return Release(0);
}

std::string TextStream::text() const {
  const std::string text = tokenizer_.Decode(ids_);
  return text.substr(0, StopOf(text));
}

}  // namespace osler
