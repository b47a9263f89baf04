#include "data/deid/known.h"

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "data/deid/name_parts.h"
#include "data/deid/words.h"

namespace osler {
namespace {

constexpr size_t kMaxValueBytes = 256;
constexpr size_t kMaxValues = 1000;
constexpr size_t kMaxGap = 3;
constexpr std::string_view kNameSeparators = " ,-'._\n";
constexpr std::string_view kIdSeparators = " -_./:#()\n";
constexpr int kKnownRank = -1'000'000;  // before every rule

}  // namespace

// The letters and digits of a shadow without what stands between them.
struct KnownMatcher::Squeezed {
  std::string letters;
  std::vector<uint32_t> at;  // byte of the shadow behind each byte of `letters`

  explicit Squeezed(std::string_view shadow) {
    size_t size = 1;
    for (size_t i = 0; i < shadow.size(); i += size) {
      if (KindOf(CharAt(shadow, i, &size)) == CharKind::kOther) continue;
      for (size_t k = 0; k < size; ++k) {
        letters += shadow[i + k];
        at.push_back(static_cast<uint32_t>(i + k));
      }
    }
  }
};

// Bytes [begin, end) of the shadow.
struct KnownMatcher::Hit {
  size_t begin = 0, end = 0;
  bool is_name = false;
  int number = 0;
};

absl::StatusOr<KnownMatcher> KnownMatcher::Create(const KnownIdentifiers& known,
                                                  const std::vector<std::string>& record_ids) {
  KnownMatcher matcher;
  const auto too_long = [](const std::string& value) { return value.size() > kMaxValueBytes; };
  const auto other_too_long = [&](const auto& kind_and_value) {
    return too_long(kind_and_value.second);
  };
  if (std::any_of(known.names.begin(), known.names.end(), too_long) ||
      std::any_of(known.others.begin(), known.others.end(), other_too_long)) {
    return DataError(absl::StrCat("a known identifier has more than ", kMaxValueBytes, " bytes"));
  }
  if (known.names.size() + known.others.size() > kMaxValues) {
    return DataError(absl::StrCat("more than ", kMaxValues, " known identifiers"));
  }
  std::vector<std::string> seen;
  const auto number_of = [&](const std::string& value) {
    const std::string key = ParseNameWord(FoldText(value)).letters;
    const auto found = std::find(seen.begin(), seen.end(), key);
    if (found != seen.end()) return static_cast<int>(found - seen.begin()) + 1;
    seen.push_back(key);
    return static_cast<int>(seen.size());
  };
  for (const std::string& name : known.names) {
    const int number = number_of(name);
    for (const std::string& spelling : NameSpellings(name)) matcher.AddName(spelling, number);
  }
  seen.clear();
  for (const auto& [kind, value] : known.others) {
    const int number = number_of(value);
    matcher.AddId(value, number);
    matcher.AddTail(value, number);
  }
  for (const std::string& id : record_ids) {
    if (id.size() < 5 || id.size() > kMaxValueBytes || !HasDigit(id)) continue;
    matcher.AddId(id, number_of(id));
  }
  return matcher;
}

// "MRN-00445566" is also written 00445566 and 445566.
void KnownMatcher::AddTail(const std::string& value, int number) {
  const size_t digits = value.find_first_of("0123456789");
  if (digits == std::string::npos) return;
  const bool only_digits = value.find_first_not_of("0123456789", digits) == std::string::npos;
  if (digits > 0 && only_digits && value.size() - digits >= 6) AddId(value.substr(digits), number);
  const size_t first = std::min(value.find_first_not_of('0', digits), value.size());
  if (first > digits && value.size() - first >= 5) AddId(value.substr(first), number);
}

void KnownMatcher::AddForm(Form form) {
  const auto same = [&](const Form& other) {
    return other.letters == form.letters && other.is_name == form.is_name &&
           other.marks == form.marks;
  };
  if (std::none_of(forms_.begin(), forms_.end(), same)) forms_.push_back(std::move(form));
}

void KnownMatcher::AddName(const std::string& name, int number) {
  const std::vector<NameWord> words = ParseName(FoldText(name));
  if (initials_.size() < static_cast<size_t>(number)) initials_.resize(static_cast<size_t>(number));
  const auto add_word = [&](const std::string& letters, std::vector<size_t> marks) {
    if (CountChars(letters) < 2 ||
        !std::any_of(letters.begin(), letters.end(), [](char c) { return c < '0' || c > '9'; })) {
      return;
    }
    const bool plain = marks.empty();
    AddForm({letters, std::move(marks), Gaps::kMarked, plain && IsCommonWord(letters),
             plain && letters.size() >= 4, true, number});
  };
  for (const NameWord& word : words) {
    initials_[static_cast<size_t>(number) - 1] += word.letters[0];
    // A particle says nothing alone: "van", "de", "bin".
    if (words.size() > 1 && IsNameParticle(word.letters)) continue;
    add_word(word.letters, word.marks);
    for (const std::string& part : word.parts) {
      if (!IsNameParticle(part)) add_word(part, {});
    }
  }
  if (words.size() < 2) return;
  const auto add_row = [&](const std::vector<const NameWord*>& row) {
    Form form{"", {}, Gaps::kMarked, false, false, true, number};
    for (const NameWord* word : row) {
      if (!form.letters.empty()) form.marks.push_back(form.letters.size());
      for (const size_t mark : word->marks) form.marks.push_back(form.letters.size() + mark);
      form.letters += word->letters;
    }
    if (CountChars(form.letters) >= 3) AddForm(std::move(form));
  };
  std::vector<const NameWord*> row;
  for (const NameWord& word : words) row.push_back(&word);
  add_row(row);
  add_row({row.front(), row.back()});
  add_row({row.back(), row.front()});
  std::rotate(row.begin(), row.end() - 1, row.end());
  add_row(row);
}

void KnownMatcher::AddId(const std::string& value, int number) {
  NameWord word = ParseNameWord(FoldText(value));
  if (CountChars(word.letters) < 2) return;
  const bool anywhere = word.letters.size() >= 5 && HasDigit(word.letters);
  AddForm({std::move(word.letters), std::move(word.marks),
           anywhere ? Gaps::kAnywhere : Gaps::kMarked, false, false, false, number});
}

namespace {

// A short number is not looked for inside decimals, fractions and ranges.
bool StandsAlone(std::string_view shadow, size_t begin, size_t end) {
  const auto digit_at = [&](size_t i) {
    return i < shadow.size() && KindOf(shadow[i]) == CharKind::kDigit;
  };
  const auto joins = [&](size_t i) {
    return i < shadow.size() && std::string_view(".,/-").find(shadow[i]) != std::string_view::npos;
  };
  if (KindOf(CharBefore(shadow, begin)) != CharKind::kOther ||
      KindOf(CharAt(shadow, end)) != CharKind::kOther)
    return false;
  if (begin >= 2 && joins(begin - 1) && digit_at(begin - 2)) return false;
  return !(joins(end) && digit_at(end + 1));
}

// What stands between two parts of one name on one line: separators and at most two initials ("John
// Q. Smith").
bool JoinsName(std::string_view between) {
  if (between.size() > 10) return false;
  int initials = 0;
  char before = ' ';
  for (const char c : between) {
    const bool letter = KindOf(static_cast<unsigned char>(c)) == CharKind::kLetter;
    if (letter &&
        (std::string_view(" ,.").find(before) == std::string_view::npos || ++initials > 2))
      return false;
    if (c == '.' && KindOf(static_cast<unsigned char>(before)) != CharKind::kLetter) return false;
    if (!letter && c != '.' && std::string_view(" ,-'_").find(c) == std::string_view::npos)
      return false;
    before = c;
  }
  return true;
}

// Widens a name [begin, end) by the initials of its other words: "J. Smith", "Smith, J."
void TakeInitials(std::string_view shadow, std::string_view initials,
                  absl::FunctionRef<bool(size_t)> capital_at, size_t* begin, size_t* end) {
  const auto at = [&](size_t i) { return i < shadow.size() ? shadow[i] : '\0'; };
  const auto is_initial = [&](size_t i) {
    return initials.find(at(i)) != std::string_view::npos && capital_at(i);
  };
  for (int k = 0; k < 2 && *begin >= 2; ++k) {
    size_t i = *begin - 1;
    if (at(i) == ' ' && i > 0) --i;
    if (at(i) == '.' && i > 0) --i;
    if (i == *begin - 1 || !is_initial(i) || KindOf(CharBefore(shadow, i)) != CharKind::kOther)
      break;
    *begin = i;
  }
  for (int k = 0; k < 2; ++k) {
    size_t i = *end;
    if (at(i) == ',') ++i;
    if (at(i) == ' ') ++i;
    const bool apart = i > *end || at(i - 1) == '.';
    if (!apart || i >= shadow.size() || !is_initial(i) ||
        KindOf(CharAt(shadow, i + 1)) != CharKind::kOther)
      break;
    *end = i + 1;
    if (at(*end) == '.') ++*end;
  }
}

}  // namespace

void KnownMatcher::FindForm(const Form& form, const Squeezed& text, std::string_view source,
                            const Shadow& folded, std::vector<Hit>& hits) const {
  const std::string_view shadow = folded.text();
  const std::string_view separators = form.is_name ? kNameSeparators : kIdSeparators;
  const auto gap_is_fine = [&](size_t match, size_t i) {
    const size_t begin = text.at[match + i - 1] + 1, end = text.at[match + i];
    if (begin == end) return true;
    if (end - begin > kMaxGap) return false;
    if (form.gaps == Gaps::kMarked &&
        std::find(form.marks.begin(), form.marks.end(), i) == form.marks.end())
      return false;
    return shadow.substr(begin, end - begin).find_first_not_of(separators) ==
           std::string_view::npos;
  };
  for (size_t match = text.letters.find(form.letters); match != std::string::npos;
       match = text.letters.find(form.letters, match + 1)) {
    bool fits = true;
    for (size_t i = 1; fits && i < form.letters.size(); ++i) fits = gap_is_fine(match, i);
    if (!fits) continue;
    const size_t begin = text.at[match];
    size_t end = text.at[match + form.letters.size() - 1] + 1;
    if (form.plural && CharAt(shadow, end) == 's' &&
        KindOf(CharAt(shadow, end + 1)) != CharKind::kLetter)
      ++end;
    if (!IsBoundary(CharBefore(shadow, begin), CharAt(shadow, begin)) ||
        !IsBoundary(CharAt(shadow, end), CharBefore(shadow, end))) {
      continue;
    }
    if (!form.is_name && form.letters.size() < 4 && !StandsAlone(shadow, begin, end)) continue;
    if (form.capital_only && !IsCapital(CharAt(source, folded.Source(begin, begin + 1).begin)))
      continue;
    hits.push_back({begin, end, form.is_name, form.number});
  }
}

std::vector<Finding> KnownMatcher::Find(std::string_view source, const Shadow& folded) const {
  std::vector<Finding> findings;
  if (forms_.empty()) return findings;
  const std::string_view shadow = folded.text();
  const Squeezed text(shadow);
  std::vector<Hit> hits;
  for (const Form& form : forms_) FindForm(form, text, source, folded, hits);
  std::sort(hits.begin(), hits.end(), [](const Hit& a, const Hit& b) {
    return std::tuple(a.begin, b.end, a.number) < std::tuple(b.begin, a.end, b.number);
  });
  std::vector<Hit> joined;
  for (const Hit& hit : hits) {
    Hit* last = joined.empty() ? nullptr : &joined.back();
    const bool joins =
        last != nullptr && last->is_name && hit.is_name && last->number == hit.number &&
        (hit.begin <= last->end || JoinsName(shadow.substr(last->end, hit.begin - last->end)));
    if (joins) {
      last->end = std::max(last->end, hit.end);
    } else {
      joined.push_back(hit);
    }
  }
  const auto capital_at = [&](size_t i) {
    return IsCapital(CharAt(source, folded.Source(i, i + 1).begin));
  };
  for (Hit& hit : joined) {
    if (hit.is_name)
      TakeInitials(shadow, initials_[static_cast<size_t>(hit.number) - 1], capital_at, &hit.begin,
                   &hit.end);
    findings.push_back({folded.Source(hit.begin, hit.end), hit.is_name ? "name" : "id",
                        absl::StrCat(hit.is_name ? "[NAME-" : "[ID-", hit.number, "]"),
                        kKnownRank + hit.number});
  }
  return findings;
}

}  // namespace osler
