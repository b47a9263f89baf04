#include "data/tokenizer/jinja.h"

#include <algorithm>

#include "base/errors.h"
#include "base/status_macros.h"
#include "data/tokenizer/jinja_parser.h"
#include "data/tokenizer/jinja_render.h"
#include "data/tokenizer/unicode.h"

namespace osler::jinja {

void Text::Append(const Text& other) {
  const size_t shift = bytes.size();
  bytes += other.bytes;
  for (const Span& span : other.spans)
    spans.push_back({span.begin + shift, span.end + shift, span.message, span.from});
}

// A part of a span, or all of one that is empty; where the slice itself is empty, one that it
// touches.
Text Text::Slice(size_t begin, size_t end) const {
  Text slice{bytes.substr(begin, end - begin), {}};
  for (const Span& span : spans) {
    const size_t first = std::clamp(span.begin, begin, end);
    const size_t last = std::clamp(span.end, begin, end);
    const bool touches = span.begin <= end && span.end >= begin;
    if (first == last && !(touches && (span.begin == span.end || begin == end))) continue;
    slice.spans.push_back({first - begin, last - begin, span.message,
                           span.from + (std::max(first, span.begin) - span.begin)});
  }
  return slice;
}

Template::Template() = default;
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

absl::StatusOr<Template> Template::Parse(std::string_view source,
                                         const std::vector<std::string>& variables) {
  if (!IsUtf8(source)) return ConfigError("not UTF-8");
  OSLER_ASSIGN_OR_RETURN(std::vector<LexToken> tokens, Tokenize(source));
  Parser parser(std::move(tokens), variables);
  Template made;
  OSLER_ASSIGN_OR_RETURN(made.body_, parser.Run());
  for (const std::string& name : variables) {
    if (parser.reads().count(name) != 0) made.reads_.push_back(name);
  }
  made.marks_generation_ = parser.marks_generation();
  return made;
}

absl::StatusOr<Rendered> Template::Render(const Variables& variables) const {
  return Renderer(variables).Run(body_);
}

}  // namespace osler::jinja
