// The part of Jinja that chat templates of the Gemma kind are written in, as transformers sets it
// up (trim_blocks and lstrip_blocks on): if / for / set, string and list expressions, the filters
// trim and length, a few tests, strip(), raise_exception. Anything else is refused by name when the
// template is parsed, so that no template is rendered in another way than its own: dates, tools,
// macros and unknown variables are errors, not blanks.
//
// Written text remembers which message's content it came from: loss masks are cut by that.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/record.h"

namespace osler::jinja {

// Bytes [begin, end) of a text that are the content of message `message` (0-based).
struct Span {
  size_t begin, end;
  int64_t message;
};

struct Text {
  std::string bytes;
  std::vector<Span> spans;
  void Append(const Text& other);
};

struct Variables {
  const std::vector<Message>* messages = nullptr;
  bool add_generation_prompt = false;
  std::vector<std::pair<std::string, std::string>> strings;  // bos_token and the like
};

struct Node;

// Immutable and thread-safe.
class Template {
 public:
  // Config errors start with "line N: ". Only `variables`, "messages" and "add_generation_prompt"
  // may be read.
  static absl::StatusOr<Template> Parse(std::string_view source,
                                        const std::vector<std::string>& variables);
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;
  ~Template();

  // Data errors where the template raises (message number first), config errors where it cannot be
  // evaluated.
  absl::StatusOr<Text> Render(const Variables& variables) const;
  // Which of the variables given to Parse the template reads.
  const std::vector<std::string>& reads() const { return reads_; }

 private:
  Template();
  std::vector<std::unique_ptr<Node>> body_;
  std::vector<std::string> reads_;
};

}  // namespace osler::jinja
