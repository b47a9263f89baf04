#include "data/tokenizer/jinja_value.h"

#include <algorithm>
#include <string>
#include <utility>

#include "data/tokenizer/unicode.h"

namespace osler::jinja {
namespace {

Value Make(Kind kind, int64_t integer) {
  Value value;
  value.kind = kind;
  value.integer = integer;
  return value;
}

// Python's floor division and modulus; integers here are small (nine digits, then sums of such).
std::optional<Value> Arithmetic(std::string_view op, int64_t a, int64_t b) {
  int64_t made = 0;
  bool overflow = false;
  if (op == "+") overflow = __builtin_add_overflow(a, b, &made);
  if (op == "-") overflow = __builtin_sub_overflow(a, b, &made);
  if (op == "*") overflow = __builtin_mul_overflow(a, b, &made);
  if (op == "//" || op == "%") {
    if (b == 0 || (a == INT64_MIN && b == -1)) return std::nullopt;
    int64_t quotient = a / b, rest = a % b;
    if (rest != 0 && (rest < 0) != (b < 0)) {
      --quotient;
      rest += b;
    }
    made = op == "%" ? rest : quotient;
  }
  if (overflow) return std::nullopt;
  return Value::Integer(made);
}

// A Python slice bound for a list of `size`.
std::optional<int64_t> Bound(const Value* value, int64_t otherwise, int64_t size) {
  if (value == nullptr || value->kind == Kind::kNone) return otherwise;
  if (!value->IsNumber()) return std::nullopt;
  const int64_t at = value->integer < 0 ? value->integer + size : value->integer;
  return std::clamp<int64_t>(at, 0, size);
}

bool Contains(const Value& container, const Value& item, bool* ok) {
  *ok = true;
  switch (container.kind) {
    case Kind::kUndefined: return false;
    case Kind::kString:
      *ok = item.kind == Kind::kString;
      return *ok && container.text->bytes.find(item.text->bytes) != std::string::npos;
    case Kind::kList:
      return std::any_of(container.list->begin(), container.list->end(),
                         [&](const Value& one) { return Equal(one, item); });
    case Kind::kMessage:
      return item.kind == Kind::kString &&
             (item.text->bytes == "role" || item.text->bytes == "content");
    default: *ok = false; return false;
  }
}

}  // namespace

Value Value::None() { return Make(Kind::kNone, 0); }
Value Value::Bool(bool value) { return Make(Kind::kBool, value); }
Value Value::Integer(int64_t value) { return Make(Kind::kInteger, value); }
Value Value::OfMessage(int64_t index) { return Make(Kind::kMessage, index); }

Value Value::Loop(int64_t round, int64_t rounds) {
  Value value = Make(Kind::kLoop, round);
  value.size = rounds;
  return value;
}

Value Value::String(Text text) {
  Value value = Make(Kind::kString, 0);
  value.text = std::make_shared<const Text>(std::move(text));
  return value;
}

Value Value::List(std::vector<Value> items) {
  Value value = Make(Kind::kList, 0);
  value.list = std::make_shared<const std::vector<Value>>(std::move(items));
  return value;
}

bool Value::IsTrue() const {
  switch (kind) {
    case Kind::kUndefined:
    case Kind::kNone: return false;
    case Kind::kBool:
    case Kind::kInteger: return integer != 0;
    case Kind::kString: return !text->bytes.empty();
    case Kind::kList: return !list->empty();
    default: return true;
  }
}

bool Value::Is(std::string_view test) const {
  if (test == "defined") return kind != Kind::kUndefined;
  if (test == "undefined") return kind == Kind::kUndefined;
  if (test == "none") return kind == Kind::kNone;
  if (test == "string") return kind == Kind::kString;
  if (test == "mapping") return kind == Kind::kMessage;
  if (test == "true") return kind == Kind::kBool && integer != 0;
  if (test == "false") return kind == Kind::kBool && integer == 0;
  // iterable and sequence; Jinja's Undefined counts as an empty one
  return kind == Kind::kUndefined || kind == Kind::kString || kind == Kind::kList ||
         kind == Kind::kMessage;
}

std::optional<Text> Value::Printed() const {
  switch (kind) {
    case Kind::kUndefined: return Text{};
    case Kind::kNone: return Text{"None", {}};
    case Kind::kBool: return Text{integer != 0 ? "True" : "False", {}};
    case Kind::kInteger: return Text{std::to_string(integer), {}};
    case Kind::kString: return *text;
    default: return std::nullopt;
  }
}

std::optional<Value> Value::Item(const Value& key) const {
  if (kind == Kind::kLoop && key.kind == Kind::kString) {
    const std::string& name = key.text->bytes;
    if (name == "index") return Integer(integer + 1);
    if (name == "index0") return Integer(integer);
    if (name == "first") return Bool(integer == 0);
    if (name == "last") return Bool(integer + 1 == size);
    return Integer(size);  // length: the parser lets no other name through
  }
  if (kind == Kind::kList && key.IsNumber()) {
    const int64_t count = static_cast<int64_t>(list->size());
    const int64_t at = key.integer < 0 ? key.integer + count : key.integer;
    return at >= 0 && at < count ? (*list)[static_cast<size_t>(at)] : Value();
  }
  return std::nullopt;
}

std::optional<Value> Value::Slice(const Value* first, const Value* last) const {
  if (kind != Kind::kList) return std::nullopt;
  const int64_t count = static_cast<int64_t>(list->size());
  const auto begin = Bound(first, 0, count), end = Bound(last, count, count);
  if (!begin.has_value() || !end.has_value()) return std::nullopt;
  return List({list->begin() + std::min(*begin, *end), list->begin() + *end});
}

std::optional<Value> Value::Strip(bool left, bool right) const {
  if (kind != Kind::kString) return std::nullopt;
  const std::string_view whole = text->bytes;
  const std::string_view tail = TrimPythonSpace(whole, left, false);
  const size_t begin = whole.size() - tail.size();
  const size_t end = begin + TrimPythonSpace(tail, false, right).size();
  Text out{std::string(whole.substr(begin, end - begin)), text->spans};
  for (Span& span : out.spans) {
    span.begin = std::clamp(span.begin, begin, end) - begin;
    span.end = std::clamp(span.end, begin, end) - begin;
  }
  return String(std::move(out));
}

std::optional<Value> Value::Length() const {
  if (kind == Kind::kUndefined) return Integer(0);
  if (kind == Kind::kList) return Integer(static_cast<int64_t>(list->size()));
  if (kind == Kind::kMessage) return Integer(2);
  if (kind != Kind::kString) return std::nullopt;
  int64_t count = 0;
  for (size_t at = 0; at < text->bytes.size(); ++count) NextCodePoint(text->bytes, at);
  return Integer(count);
}

bool Equal(const Value& left, const Value& right) {
  if (left.IsNumber() && right.IsNumber()) return left.integer == right.integer;
  if (left.kind != right.kind) return false;
  switch (left.kind) {
    case Kind::kString: return left.text->bytes == right.text->bytes;
    case Kind::kList:
      return std::equal(left.list->begin(), left.list->end(), right.list->begin(),
                        right.list->end(), Equal);
    case Kind::kUndefined:
    case Kind::kNone: return true;
    default: return false;
  }
}

std::optional<Value> Compare(std::string_view op, const Value& left, const Value& right) {
  // Messages are told apart by place here, by content in Jinja.
  if (left.kind == Kind::kMessage && right.kind == Kind::kMessage) return std::nullopt;
  if (op == "==") return Value::Bool(Equal(left, right));
  if (op == "!=") return Value::Bool(!Equal(left, right));
  if (op == "in" || op == "not in") {
    bool ok = false;
    const bool inside = Contains(right, left, &ok);
    if (!ok) return std::nullopt;
    return Value::Bool(inside == (op == "in"));
  }
  int order = 0;
  if (left.IsNumber() && right.IsNumber()) {
    order = (left.integer > right.integer) - (left.integer < right.integer);
  } else if (left.kind == Kind::kString && right.kind == Kind::kString) {
    order = left.text->bytes.compare(right.text->bytes);  // UTF-8 keeps the order of code points
  } else {
    return std::nullopt;
  }
  if (op == "<") return Value::Bool(order < 0);
  if (op == "<=") return Value::Bool(order <= 0);
  if (op == ">") return Value::Bool(order > 0);
  return Value::Bool(order >= 0);
}

std::optional<Value> Combine(std::string_view op, const Value& left, const Value& right) {
  if (op == "~" || (op == "+" && left.kind == Kind::kString && right.kind == Kind::kString)) {
    std::optional<Text> joined = left.Printed();
    const std::optional<Text> tail = right.Printed();
    if (!joined.has_value() || !tail.has_value()) return std::nullopt;
    joined->Append(*tail);
    return Value::String(*std::move(joined));
  }
  if (op == "+" && left.kind == Kind::kList && right.kind == Kind::kList) {
    std::vector<Value> items = *left.list;
    items.insert(items.end(), right.list->begin(), right.list->end());
    return Value::List(std::move(items));
  }
  if (left.IsNumber() && right.IsNumber()) return Arithmetic(op, left.integer, right.integer);
  return std::nullopt;
}

}  // namespace osler::jinja
