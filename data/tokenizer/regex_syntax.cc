#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "data/tokenizer/regex.h"
#include "data/tokenizer/unicode.h"

namespace osler {
namespace {

constexpr int kMaxDepth = 32;
constexpr size_t kMaxPattern = 16384;

// What Oniguruma 6.9 (Unicode 16) has in a class beyond PCRE2 10.42 (Unicode 14).
constexpr std::string_view kLetters =
    R"(\p{L}\x{1C89}\x{1C8A}\x{A7CB}-\x{A7CD}\x{A7DA}-\x{A7DC}\x{105C0}-\x{105F3}\x{10D4A}-\x{10D65})"
    R"(\x{10D6F}-\x{10D85}\x{10EC2}-\x{10EC4}\x{1123F}\x{11240}\x{11380}-\x{11389}\x{1138B}\x{1138E})"
    R"(\x{11390}-\x{113B5}\x{113B7}\x{113D1}\x{113D3}\x{11BC0}-\x{11BE0}\x{11F02}\x{11F04}-\x{11F10})"
    R"(\x{11F12}-\x{11F33}\x{1342F}\x{13441}-\x{13446}\x{13460}-\x{143FA}\x{16100}-\x{1611D})"
    R"(\x{16D40}-\x{16D6C}\x{18CFF}\x{1B132}\x{1B155}\x{1DF25}-\x{1DF2A}\x{1E030}-\x{1E06D})"
    R"(\x{1E4D0}-\x{1E4EB}\x{1E5D0}-\x{1E5ED}\x{1E5F0}\x{2B739}\x{2EBF0}-\x{2EE5D}\x{31350}-\x{323AF})";
constexpr std::string_view kNumbers =
    R"(\p{N}\x{10D40}-\x{10D49}\x{116D0}-\x{116E3}\x{11BF0}-\x{11BF9}\x{11F50}-\x{11F59})"
    R"(\x{16130}-\x{16139}\x{16D70}-\x{16D79}\x{1CCF0}-\x{1CCF9}\x{1D2C0}-\x{1D2D3})"
    R"(\x{1E4F0}-\x{1E4F9}\x{1E5F1}-\x{1E5FA})";
// White_Space: PCRE2's own \s also has U+180E.
constexpr std::string_view kSpaces =
    R"(\x{9}-\x{D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

// Two ASCII letters that Oniguruma folds to one other character when case does not matter.
constexpr std::array<std::string_view, 5> kLigatures = {"ff", "fi", "fl", "ss", "st"};

// Recursive descent over one pattern, writing PCRE2's as it goes.
class Translator {
 public:
  explicit Translator(const JsonPart& part, std::string_view pattern)
      : part_(part), pattern_(pattern) {}

  absl::StatusOr<std::string> Run() {
    if (pattern_.empty()) return part_.Error("must not be empty");
    if (pattern_.size() > kMaxPattern) return part_.Error("the pattern is too long");
    OSLER_RETURN_IF_ERROR(Alternatives(0));
    if (at_ < pattern_.size()) return Unknown("a closing parenthesis alone");
    return std::move(out_);
  }

 private:
  absl::Status Unknown(std::string_view what) const {
    return part_.Error(absl::StrCat(
        "at byte ", at_, " of the pattern: ", absl::string_view(what.data(), what.size()),
        ", which this build does not know"));
  }

  bool Starts(std::string_view text) const { return pattern_.substr(at_, text.size()) == text; }
  bool Take(std::string_view text) {
    if (!Starts(text)) return false;
    at_ += text.size();
    return true;
  }

  absl::Status Alternatives(int depth) {
    if (depth > kMaxDepth) return Unknown("groups nested too deeply");
    while (at_ < pattern_.size() && pattern_[at_] != ')') {
      if (Take("|")) {
        out_ += '|';
        run_.clear();
        continue;
      }
      OSLER_RETURN_IF_ERROR(Item(depth));
    }
    return absl::OkStatus();
  }

  absl::Status Item(int depth) {
    if (pattern_[at_] == '(') {
      OSLER_RETURN_IF_ERROR(Group(depth));
    } else if (pattern_[at_] == '[') {
      OSLER_RETURN_IF_ERROR(Class());
    } else {
      OSLER_RETURN_IF_ERROR(Single());
    }
    return Quantifier();
  }

  absl::Status Group(int depth) {
    const bool folded = folding_;
    run_.clear();
    if (Take("(?=")) {
      out_ += "(?=";
    } else if (Take("(?!")) {
      out_ += "(?!";
    } else if (Take("(?i:")) {
      out_ += "(?i:";
      folding_ = true;
    } else if (Take("(?:")) {
      out_ += "(?:";
    } else if (Starts("(?")) {
      return Unknown("a group of a kind");
    } else {
      ++at_;
      out_ += "(?:";  // nothing reads what a group caught
    }
    OSLER_RETURN_IF_ERROR(Alternatives(depth + 1));
    if (!Take(")")) return Unknown("a group without an end");
    out_ += ')';
    run_.clear();
    folding_ = folded;
    return absl::OkStatus();
  }

  absl::Status Class() {
    if (folding_) return Unknown("a class where case does not matter");
    run_.clear();
    ++at_;
    out_ += Take("^") ? "[^" : "[";
    if (Starts("]")) return Unknown("an empty class");
    while (!Take("]")) {
      if (at_ >= pattern_.size()) return Unknown("a class without an end");
      if (Starts("[") || Starts("&&")) return Unknown("a class inside a class");
      if (Starts("-")) return Unknown("a bare - in a class");
      char32_t first = 0, last = 0;
      OSLER_ASSIGN_OR_RETURN(const bool is_set, SetOrCharacter(first));
      if (is_set) continue;
      if (!Starts("-") || pattern_.substr(at_, 2) == "-]") {
        absl::StrAppendFormat(&out_, "\\x{%X}", static_cast<uint32_t>(first));
        if (Take("-")) out_ += "\\x{2D}";
        continue;
      }
      ++at_;
      const size_t written = out_.size();
      if (at_ >= pattern_.size() || Starts("[")) return Unknown("a range without an end");
      OSLER_ASSIGN_OR_RETURN(const bool ends_in_set, SetOrCharacter(last));
      if (ends_in_set || out_.size() != written || last < first) return Unknown("a range");
      absl::StrAppendFormat(&out_, "\\x{%X}-\\x{%X}", static_cast<uint32_t>(first),
                            static_cast<uint32_t>(last));
    }
    out_ += ']';
    return absl::OkStatus();
  }

  // Inside [ ]: a set such as \p{L}, which it writes, or else a character, which it gives.
  absl::StatusOr<bool> SetOrCharacter(char32_t& code) {
    const std::string_view set = TakeSet();
    if (!set.empty()) {
      out_.append(set);
      return true;
    }
    OSLER_ASSIGN_OR_RETURN(code, Character());
    return false;
  }

  std::string_view TakeSet() {
    if (Take("\\p{L}")) return kLetters;
    if (Take("\\p{N}")) return kNumbers;
    if (Take("\\s")) return kSpaces;
    return {};
  }

  absl::Status Single() {
    if (const std::string_view set = TakeSet(); !set.empty()) {
      if (folding_) return Unknown("a class where case does not matter");
      absl::StrAppend(&out_, "[", absl::string_view(set.data(), set.size()), "]");
      run_.clear();
      return absl::OkStatus();
    }
    if (Take("\\S")) {
      absl::StrAppend(&out_, "[^", absl::string_view(kSpaces.data(), kSpaces.size()), "]");
      run_.clear();
      return absl::OkStatus();
    }
    if (std::string_view("*+?{}]^$.").find(pattern_[at_]) != std::string_view::npos) {
      return Unknown("an operator here");
    }
    OSLER_ASSIGN_OR_RETURN(const char32_t code, Character());
    if (folding_) OSLER_RETURN_IF_ERROR(CheckFolding(code));
    absl::StrAppendFormat(&out_, "\\x{%X}", static_cast<uint32_t>(code));
    return absl::OkStatus();
  }

  absl::Status CheckFolding(char32_t code) {
    if (code >= 0x80) return Unknown("a character beyond ASCII where case does not matter");
    run_ += absl::ascii_tolower(static_cast<unsigned char>(code));
    for (const std::string_view pair : kLigatures) {
      if (run_.size() >= 2 && std::string_view(run_).substr(run_.size() - 2) == pair) {
        return Unknown("letters that fold to a ligature where case does not matter");
      }
    }
    return absl::OkStatus();
  }

  // A literal character or an escape that stands for one.
  absl::StatusOr<char32_t> Character() {
    if (!Take("\\")) return NextCodePoint(pattern_, at_);
    if (at_ >= pattern_.size()) return Unknown("a backslash at the end");
    const char escaped = pattern_[at_];
    const bool anchors = std::string_view("'`<>").find(escaped) != std::string_view::npos;  // GNU's
    if ((absl::ascii_ispunct(static_cast<unsigned char>(escaped)) && !anchors) || escaped == ' ') {
      ++at_;
      return static_cast<char32_t>(escaped);
    }
    if (Take("r")) return U'\r';
    if (Take("n")) return U'\n';
    if (Take("t")) return U'\t';
    if (Take("f")) return U'\f';
    return Unknown("an escape");
  }

  absl::Status Quantifier() {
    const size_t begin = at_;
    bool counted = false;
    if (Take("{")) {
      counted = true;
      int digits = 0;
      while (at_ < pattern_.size() && absl::ascii_isdigit(pattern_[at_])) ++at_, ++digits;
      if (digits == 0 || digits > 3) return Unknown("a count of a form");
      for (digits = 0, Take(","); at_ < pattern_.size() && absl::ascii_isdigit(pattern_[at_]);)
        ++at_, ++digits;
      if (digits > 3 || !Take("}")) return Unknown("a count of a form");
    } else if (!Take("*") && !Take("+") && !Take("?")) {
      return absl::OkStatus();
    }
    run_.clear();
    if (Starts("?") || Starts("+") || Starts("*") || Starts("{")) {
      // Oniguruma reads what follows a count in another way than PCRE2.
      if (counted || Starts("*") || Starts("{")) return Unknown("a repeated repeat");
      ++at_;
      if (Starts("?") || Starts("+") || Starts("*") || Starts("{")) {
        return Unknown("a repeated repeat");
      }
    }
    out_.append(pattern_.substr(begin, at_ - begin));
    return absl::OkStatus();
  }

  const JsonPart& part_;
  std::string_view pattern_;
  std::string out_, run_;  // run_: the literal letters just before, where case does not matter
  size_t at_ = 0;
  bool folding_ = false;
};

}  // namespace

absl::StatusOr<std::string> ToPcre2(const JsonPart& part) {
  OSLER_ASSIGN_OR_RETURN(const std::string pattern, ExpectString(part));
  return Translator(part, pattern).Run();
}

}  // namespace osler
