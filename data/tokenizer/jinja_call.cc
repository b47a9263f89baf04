// What may be called in a template, and with which arguments.
#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "data/tokenizer/jinja_parser.h"

namespace osler::jinja {
namespace {

struct Signature {
  std::string_view name;
  Builtin builtin;
  size_t required = 0;
  std::array<std::string_view, 2> parameters = {};  // of those that may be given
};

constexpr Signature kFilters[] = {
    {"trim", Builtin::kTrim, 0, {"chars"}},
    {"length", Builtin::kLength},
    {"count", Builtin::kLength},
    {"tojson", Builtin::kToJson, 0, {"ensure_ascii", "indent"}},
    {"items", Builtin::kItems},
    {"list", Builtin::kList},
    {"join", Builtin::kJoin, 0, {"d"}},
    {"upper", Builtin::kUpper},
    {"lower", Builtin::kLower},
    {"first", Builtin::kFirst},
    {"last", Builtin::kLast},
    {"default", Builtin::kDefault, 0, {"default_value", "boolean"}},
    {"d", Builtin::kDefault, 0, {"default_value", "boolean"}},
    {"string", Builtin::kString},
    {"replace", Builtin::kReplace, 2, {"old", "new"}},
    {"select", Builtin::kSelect, 2, {"test", "argument"}},
    {"reject", Builtin::kReject, 2, {"test", "argument"}},
};

constexpr Signature kMethods[] = {
    {"strip", Builtin::kTrim, 0, {"chars"}},
    {"lstrip", Builtin::kLeftTrim, 0, {"chars"}},
    {"rstrip", Builtin::kRightTrim, 0, {"chars"}},
    {"startswith", Builtin::kStartsWith, 1, {"prefix"}},
    {"endswith", Builtin::kEndsWith, 1, {"suffix"}},
    {"split", Builtin::kSplit, 1, {"sep"}},
    {"replace", Builtin::kReplace, 2, {"old", "new"}},
    {"upper", Builtin::kUpper},
    {"lower", Builtin::kLower},
    {"items", Builtin::kItems},
    {"keys", Builtin::kKeys},
    {"values", Builtin::kValues},
    {"get", Builtin::kGet, 1, {"key", "default"}},
};

template <size_t n>
const Signature* Find(const Signature (&known)[n], std::string_view name) {
  const auto* found = std::find_if(known, known + n, [&](const auto& s) { return s.name == name; });
  return found == known + n ? nullptr : found;
}

}  // namespace

absl::Status Parser::ParseArguments(Node& call) {
  while (!TakeSymbol(")")) {
    const bool named =
        peek().kind == Lex::kName && peek(1).kind == Lex::kSymbol && peek(1).text == "=";
    if (named) {
      call.names.push_back(peek().text);
      at_ += 2;
    } else if (!call.names.empty()) {
      return SyntaxError(peek().line, "an argument without a name behind one with a name");
    }
    OSLER_ASSIGN_OR_RETURN(NodePtr value, ParseExpression());
    call.children.push_back(std::move(value));
    if (!IsNext(Lex::kSymbol, ")")) OSLER_RETURN_IF_ERROR(Expect(Lex::kSymbol, ",", ")"));
  }
  return absl::OkStatus();
}

// Finds the filter or method `name` and puts named arguments in their places.
absl::Status Parser::BindArguments(Node& call, std::string_view name, bool is_filter) const {
  const absl::string_view what = is_filter ? "filter" : "method";
  const absl::string_view shown(name.data(), name.size());
  const Signature* known = is_filter ? Find(kFilters, name) : Find(kMethods, name);
  if (known == nullptr)
    return SyntaxError(call.line, absl::StrCat("unknown ", what, " \"", shown, "\""));
  const absl::Status bad = SyntaxError(
      call.line,
      absl::StrCat("these arguments of the ", what, " \"", shown, "\" are not supported"));
  call.builtin = known->builtin;
  const size_t named = call.names.size(), placed = call.children.size() - 1 - named;
  const auto& parameters = known->parameters;
  const size_t most = static_cast<size_t>(
      std::count_if(parameters.begin(), parameters.end(), [](auto one) { return !one.empty(); }));
  if (placed > most || (named > 0 && !is_filter)) return bad;
  std::vector<NodePtr> given(1 + most);
  for (size_t i = 0; i <= placed; ++i) given[i] = std::move(call.children[i]);
  for (size_t i = 0; i < named; ++i) {
    const auto place = std::find(parameters.begin(), parameters.end(), call.names[i]);
    const size_t at = 1 + static_cast<size_t>(place - parameters.begin());
    if (at > most || given[at] != nullptr) return bad;
    given[at] = std::move(call.children[1 + placed + i]);
  }
  for (size_t i = 0; i < known->required; ++i) {
    if (given[1 + i] == nullptr) return bad;
  }
  call.names.clear();
  call.children = std::move(given);
  return absl::OkStatus();
}

absl::StatusOr<NodePtr> Parser::ParseMethod(NodePtr object, std::string name) {
  NodePtr node = Make(Op::kMethod, name);
  node->children.push_back(std::move(object));
  OSLER_RETURN_IF_ERROR(ParseArguments(*node));
  OSLER_RETURN_IF_ERROR(BindArguments(*node, name, /*is_filter=*/false));
  return node;
}

// Functions of transformers and Jinja, and macros that stand before.
absl::StatusOr<NodePtr> Parser::ParseCall(std::string name) {
  NodePtr node = Make(Op::kCall, name);
  OSLER_RETURN_IF_ERROR(ParseArguments(*node));
  const size_t count = node->children.size(), named = node->names.size();
  bool good = defined_.count(name) != 0;
  if (!good && name == "namespace") {
    good = count == named;
  } else if (!good && (name == "raise_exception" || name == "strftime_now")) {
    good = count == 1 && named == 0;
  } else if (!good && name == "range") {
    good = count >= 1 && count <= 3 && named == 0;
  } else if (!good) {
    return SyntaxError(node->line, absl::StrCat("unknown function \"", name, "\""));
  }
  if (!good) {
    return SyntaxError(node->line,
                       absl::StrCat("these arguments of \"", name, "\" are not supported"));
  }
  return node;
}

}  // namespace osler::jinja
