// The part of Jinja that chat templates are written in, as transformers sets it up (trim_blocks and
// lstrip_blocks on, loop controls, {% generation %}): if / for / set / macro, namespaces, string,
// list and dict expressions, the filters, tests and methods that the published templates of Gemma,
// Llama and Qwen use. Anything else is refused by line when the template is parsed, so that no
// template is rendered in another way than its own. A variable that transformers would not pass is
// undefined here as there.
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

// Bytes [begin, end) of a text that are those from byte `from` on of the content of message
// `message` (0-based).
struct Span {
  size_t begin, end;
  int64_t message;
  size_t from;
};

struct Text {
  std::string bytes;
  std::vector<Span> spans;
  void Append(const Text& other);
  // Bytes [begin, end) with their spans.
  Text Slice(size_t begin, size_t end) const;
};

struct Rendered {
  Text text;
  std::vector<std::pair<size_t, size_t>> generations;  // what {% generation %} blocks wrote
};

struct Variables {
  const std::vector<Message>* messages = nullptr;
  bool add_generation_prompt = false;
  std::vector<std::pair<std::string, std::string>> strings;  // bos_token and the like
  std::string date = {};  // YYYY-MM-DD, what strftime_now takes for now; empty: there is no clock
};

struct Node;

// Immutable and thread-safe.
class Template {
 public:
  // Config errors start with "line N: ".
  static absl::StatusOr<Template> Parse(std::string_view source,
                                        const std::vector<std::string>& variables);
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;
  ~Template();

  // Data errors where the template raises (message number first), config errors where it cannot be
  // evaluated or takes too long.
  absl::StatusOr<Rendered> Render(const Variables& variables) const;
  // Which of the variables given to Parse the template reads.
  const std::vector<std::string>& reads() const { return reads_; }
  bool marks_generation() const { return marks_generation_; }

 private:
  Template();
  std::vector<std::unique_ptr<Node>> body_;
  std::vector<std::string> reads_;
  bool marks_generation_ = false;
};

}  // namespace osler::jinja
