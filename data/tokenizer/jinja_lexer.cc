#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "data/tokenizer/jinja_node.h"
#include "data/tokenizer/unicode.h"

namespace osler::jinja {
namespace {

constexpr int kMaxTagTokens = 1000;  // bounds the depth of every expression's tree

bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Line ends become "\n", and one at the very end goes: Jinja's defaults.
std::string Lines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out.push_back(source[i]);
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  absl::StatusOr<std::vector<LexToken>> Run() {
    while (at_ < source_.size()) {
      const size_t open = FindOpen();
      AddData(open);
      if (open == std::string::npos) break;
      OSLER_RETURN_IF_ERROR(ReadTag(open));
    }
    Add(Lex::kEnd, "");
    return std::move(tokens_);
  }

 private:
  void Add(Lex kind, std::string_view text) { tokens_.push_back({kind, std::string(text), line_}); }

  // Moves on, counting lines.
  void Advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(at_),
                                         source_.begin() + static_cast<ptrdiff_t>(to), '\n'));
    at_ = to;
  }

  size_t FindOpen() const {
    for (size_t i = source_.find('{', at_); i != std::string::npos; i = source_.find('{', i + 1)) {
      if (i + 1 < source_.size() &&
          (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#')) {
        return i;
      }
    }
    return std::string::npos;
  }

  // Text from here to `open`, shortened by the sign of the tag there: "-" takes all white space; a
  // block or comment without "+" takes spaces that stand alone before it on its line
  // (lstrip_blocks).
  void AddData(size_t open) {
    std::string_view data =
        std::string_view(source_).substr(at_, open == std::string::npos ? open : open - at_);
    const char sign =
        open != std::string::npos && open + 2 < source_.size() ? source_[open + 2] : ' ';
    if (open != std::string::npos && sign == '-') {
      data = TrimPythonSpace(data, false, true);
    } else if (open != std::string::npos && sign != '+' && source_[open + 1] != '{') {
      const size_t line = data.rfind('\n') + 1;  // npos + 1 = 0
      const bool at_line_start = line > 0 || at_ == 0 || source_[at_ - 1] == '\n';
      if (at_line_start && TrimPythonSpace(data.substr(line)).empty()) data = data.substr(0, line);
    }
    if (!data.empty()) Add(Lex::kData, data);
    Advance(open == std::string::npos ? source_.size() : open);
  }

  // Behind a tag that ends at `end` with `sign`: "-" takes all white space, a block or comment one
  // line end.
  void CloseTag(size_t end, char sign, bool block) {
    Advance(end);
    if (sign == '-') {
      const std::string_view rest = std::string_view(source_).substr(at_);
      Advance(at_ + rest.size() - TrimPythonSpace(rest, true, false).size());
    } else if (block && sign != '+' && at_ < source_.size() && source_[at_] == '\n') {
      Advance(at_ + 1);
    }
  }

  absl::Status ReadTag(size_t open) {
    const char kind = source_[open + 1];
    if (kind == '#') {
      const size_t close = source_.find("#}", open + 2);
      if (close == std::string::npos) return SyntaxError(line_, "a comment does not end");
      CloseTag(close + 2, source_[close - 1], /*block=*/true);
      return absl::OkStatus();
    }
    const bool block = kind == '%';
    const size_t signs =
        open + 2 < source_.size() && (source_[open + 2] == '-' || source_[open + 2] == '+');
    Add(block ? Lex::kBlockBegin : Lex::kPrintBegin, "");
    Advance(open + 2 + signs);
    for (int count = 0;; ++count) {
      if (count > kMaxTagTokens) return SyntaxError(line_, "an expression is too long");
      while (at_ < source_.size() && IsSpace(source_[at_])) Advance(at_ + 1);
      if (at_ >= source_.size()) return SyntaxError(line_, "a tag does not end");
      const size_t signed_end =
          at_ + (source_[at_] == '-' || (block && source_[at_] == '+') ? 1 : 0);
      const std::string_view end = std::string_view(source_).substr(signed_end, 2);
      if (end == (block ? "%}" : "}}") && depth_ == 0) {
        Add(block ? Lex::kBlockEnd : Lex::kPrintEnd, "");
        CloseTag(signed_end + 2, signed_end > at_ ? source_[at_] : ' ', block);
        return absl::OkStatus();
      }
      OSLER_RETURN_IF_ERROR(ReadToken());
    }
  }

  absl::Status ReadToken() {
    const char c = source_[at_];
    size_t end = at_ + 1;
    if (c == '\'' || c == '"') return ReadString(c);
    if (IsNameStart(c) || IsDigit(c)) {
      while (end < source_.size() && (IsNameStart(source_[end]) || IsDigit(source_[end]))) ++end;
      const std::string_view word = std::string_view(source_).substr(at_, end - at_);
      const bool number = IsDigit(c);
      if (number && (!std::all_of(word.begin(), word.end(), IsDigit) || word.size() > 9)) {
        return SyntaxError(line_, "a number that is not a small integer");
      }
      Add(number ? Lex::kInteger : Lex::kName, word);
      Advance(end);
      return absl::OkStatus();
    }
    const std::string_view two = std::string_view(source_).substr(at_, 2);
    for (const std::string_view symbol : {"==", "!=", "<=", ">=", "//"}) {
      if (two == symbol) ++end;
    }
    if (end == at_ + 1 &&
        std::string_view("+-*/%~<>=|.,:()[]{}").find(c) == std::string_view::npos) {
      return SyntaxError(line_, "a character that this build does not know in an expression");
    }
    depth_ += (c == '(' || c == '[' || c == '{') - (c == ')' || c == ']' || c == '}');
    Add(Lex::kSymbol, std::string_view(source_).substr(at_, end - at_));
    Advance(end);
    return absl::OkStatus();
  }

  absl::Status ReadString(char quote) {
    std::string text;
    size_t end = at_ + 1;
    for (; end < source_.size() && source_[end] != quote; ++end) {
      if (source_[end] != '\\') {
        text.push_back(source_[end]);
        continue;
      }
      if (++end == source_.size()) break;
      static constexpr std::string_view kEscapes = "n\nt\tr\r\\\\'\'\"\"";
      const char escape = source_[end];
      size_t at = 0;
      while (at < kEscapes.size() && kEscapes[at] != escape) at += 2;
      if (at >= kEscapes.size())
        return SyntaxError(line_, "an escape in a string that this build does not know");
      text.push_back(kEscapes[at + 1]);
    }
    if (end >= source_.size()) return SyntaxError(line_, "a string does not end");
    Add(Lex::kString, text);
    Advance(end + 1);
    return absl::OkStatus();
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1, depth_ = 0;
  std::vector<LexToken> tokens_;
};

}  // namespace

absl::Status SyntaxError(int line, std::string_view what) {
  return ConfigError(
      absl::StrCat("line ", line, ": ", absl::string_view(what.data(), what.size())));
}

absl::StatusOr<std::vector<LexToken>> Tokenize(std::string_view source) {
  return Lexer(Lines(source)).Run();
}

}  // namespace osler::jinja
