#include "data/sources/choice.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "data/sources/fields.h"
#include "data/sources/reject.h"

namespace osler {
namespace {

using Json = nlohmann::json;

constexpr size_t kLetters = 26;

struct Option {
  std::string letter, text;
};

absl::StatusOr<const Json*> Need(const Json& row, const std::string& path) {
  const Json* value = FindPath(row, path);
  if (value == nullptr) return DataError(MissingField(row, path));
  return value;
}

absl::Status AddOption(std::string letter, const Json& value, const std::string& name,
                       std::vector<Option>& options) {
  if (!value.is_string() && !value.is_number())
    return DataError(absl::StrCat("field \"", name, "\": option ", options.size() + 1,
                                  " is neither a text nor a number"));
  OSLER_ASSIGN_OR_RETURN(std::string text, TextOf(value));
  options.push_back({std::move(letter), std::move(text)});
  return absl::OkStatus();
}

std::string LetterOf(size_t index) { return std::string(1, static_cast<char>('A' + index)); }

absl::StatusOr<std::vector<Option>> ReadOptions(const config::Choice& choice, const Json& row) {
  std::vector<Option> options;
  if (choice.options_size() > 1) {
    for (const std::string& name : choice.options()) {
      OSLER_ASSIGN_OR_RETURN(const Json* value, Need(row, name));
      OSLER_RETURN_IF_ERROR(AddOption(LetterOf(options.size()), *value, name, options));
    }
    return options;
  }
  const std::string& name = choice.options(0);
  OSLER_ASSIGN_OR_RETURN(const Json* all, Need(row, name));
  if (!all->is_array() && !all->is_object())
    return DataError(absl::StrCat("field \"", name, "\" is no list or object of options"));
  if (all->empty() || all->size() > kLetters)
    return DataError(absl::StrCat("field \"", name, "\" holds ", all->size(), " options; 1 to ",
                                  kLetters, " can have letters"));
  for (const auto& [key, value] : all->items()) {
    OSLER_RETURN_IF_ERROR(
        AddOption(all->is_object() ? key : LetterOf(options.size()), value, name, options));
  }
  return options;
}

absl::StatusOr<size_t> FindAnswer(const config::Choice& choice, const Json& row,
                                  const std::vector<Option>& options) {
  const std::string& name = choice.answer();
  OSLER_ASSIGN_OR_RETURN(const Json* value, Need(row, name));
  if (!value->is_string() && !value->is_number_integer())
    return DataError(absl::StrCat("field \"", name, "\" is no letter or number of an option"));
  OSLER_ASSIGN_OR_RETURN(const std::string answer, TextOf(*value));
  for (size_t i = 0; i < options.size(); ++i) {
    if (value->is_string() && absl::EqualsIgnoreCase(options[i].letter, answer)) return i;
  }
  int64_t number = 0;
  if (absl::SimpleAtoi(answer, &number) && number >= choice.first() &&
      number - choice.first() < static_cast<int64_t>(options.size())) {
    return static_cast<size_t>(number - choice.first());
  }
  return DataError(absl::StrCat("field \"", name, "\" names none of the ", options.size(),
                                " options (letters, or numbers from ", choice.first(), ")"));
}

absl::Status Add(const config::Choice& choice, Json& row) {
  OSLER_ASSIGN_OR_RETURN(const std::vector<Option> options, ReadOptions(choice, row));
  std::string lines;
  for (const Option& option : options)
    absl::StrAppend(&lines, lines.empty() ? "" : "\n", option.letter, ". ", option.text);
  if (choice.has_answer()) {
    OSLER_ASSIGN_OR_RETURN(const size_t answer, FindAnswer(choice, row, options));
    row["$letter"] = options[answer].letter;
    row["$answer"] = options[answer].text;
  }
  row["$options"] = std::move(lines);
  return absl::OkStatus();
}

}  // namespace

absl::Status AddChoice(const config::Choice& choice, const Origin& origin, Json& row) {
  const absl::Status status = Add(choice, row);
  if (status.ok()) return status;
  return Reject(origin, kWrongShape, absl::StrCat("choice: ", status.message()));
}

}  // namespace osler
