// The functions and macros that a template calls.
#include <ctime>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "data/tokenizer/jinja_render.h"

namespace osler::jinja {
namespace {

constexpr int kMaxCalls = 16;           // macros inside macros
constexpr int64_t kMaxRange = 100'000;  // Jinja's sandbox

}  // namespace

absl::StatusOr<Value> Renderer::Call(const Node& node, const List& values) {
  const Value function = Get(node.text);
  if (function.kind == Kind::kFunction && function.macro != nullptr) {
    return CallMacro(node, *function.macro, values);
  }
  if (node.text == "raise_exception") return Raise(node);
  if (node.text == "strftime_now") return Now(node, values[0]);
  if (node.text == "range") return Range(node, values);
  if (node.text != "namespace") return Fail(node, "a call of a macro that is not defined here");
  Dict members;
  for (size_t i = 0; i < values.size(); ++i) members.emplace_back(node.names[i], values[i]);
  namespaces_.push_back(std::move(members));
  return Value::Namespace(static_cast<int64_t>(namespaces_.size()) - 1);
}

// A macro sees the template's own variables and its parameters, not the loops around the call.
absl::StatusOr<Value> Renderer::CallMacro(const Node& node, const Node& macro, const List& values) {
  const size_t placed = values.size() - node.names.size();
  Scope scope;
  for (size_t i = 0; i < values.size(); ++i) {
    const std::string name = i >= placed              ? node.names[i - placed]
                             : i < macro.names.size() ? macro.names[i]
                                                      : "";
    bool fits = false;
    for (const std::string& parameter : macro.names) fits = fits || parameter == name;
    for (const auto& [known, unused] : scope) fits = fits && known != name;
    if (!fits) return Fail(node, "arguments that the macro does not take");
    scope.emplace_back(name, values[i]);
  }
  if (calls_ == kMaxCalls) return Fail(node, "macros call one another too deeply");
  ++calls_;
  std::vector<Scope> outer(std::make_move_iterator(scopes_.begin() + 1),
                           std::make_move_iterator(scopes_.end()));
  scopes_.resize(1);
  scopes_.push_back(std::move(scope));
  auto text = RunMacro(macro);
  scopes_.resize(1);
  scopes_.insert(scopes_.end(), std::make_move_iterator(outer.begin()),
                 std::make_move_iterator(outer.end()));
  --calls_;
  OSLER_RETURN_IF_ERROR(text.status());
  return Value::String(*std::move(text));
}

// With the given arguments in the innermost scope, fills in the others and runs the body.
absl::StatusOr<Text> Renderer::RunMacro(const Node& macro) {
  for (size_t i = 0; i < macro.names.size(); ++i) {
    bool given = false;
    for (const auto& [known, unused] : scopes_.back()) given = given || known == macro.names[i];
    if (given) continue;
    Value value;
    if (macro.children[i] != nullptr) {
      OSLER_ASSIGN_OR_RETURN(value, Evaluate(*macro.children[i]));
    }
    Set(macro.names[i], std::move(value));
  }
  return Capture(macro.body);
}

// Only a constant reason is repeated: a computed one may hold record text.
absl::StatusOr<Value> Renderer::Raise(const Node& node) const {
  const Node& reason = *node.children[0];
  return DataError(absl::StrCat("message ", message_ + 1, ": the chat template refuses it",
                                reason.op == Op::kString ? ": " : "",
                                reason.op == Op::kString ? reason.text : ""));
}

absl::StatusOr<Value> Renderer::Now(const Node& node, const Value& format) const {
  std::tm time{};
  if (date_.empty() || strptime(date_.c_str(), "%Y-%m-%d", &time) == nullptr) {
    return Fail(node,
                "the template writes today's date, and a record must be the same text every day; "
                "name a date (data.template_date, or --date of osler tokenize)");
  }
  char text[256];
  const bool good = format.IsString() && format.text->bytes.size() < 64;
  const size_t size =
      good ? std::strftime(text, sizeof text, format.text->bytes.c_str(), &time) : 0;
  if (size == 0) return Fail(node, "a date in a form that this build does not know");
  return Value::String({std::string(text, size), {}});
}

absl::StatusOr<Value> Renderer::Range(const Node& node, const List& values) {
  for (const Value& value : values) {
    if (!value.IsNumber()) return Fail(node, "range() of something that is not a number");
  }
  const int64_t first = values.size() > 1 ? values[0].integer : 0;
  const int64_t last = values.size() > 1 ? values[1].integer : values[0].integer;
  const int64_t step = values.size() > 2 ? values[2].integer : 1;
  List items;
  for (int64_t at = first; step != 0 && (step > 0 ? at < last : at > last);) {
    items.push_back(Value::Integer(at));
    if (items.size() > kMaxRange) break;
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  if (step == 0 || items.size() > kMaxRange) return Fail(node, "a range() that is too long");
  OSLER_RETURN_IF_ERROR(Spend(node, items.size()));
  return *Value::ListOf(std::move(items));
}

}  // namespace osler::jinja
