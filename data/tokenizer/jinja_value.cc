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

// The indexes that a Python slice of `size` items takes, or nullopt where Python raises.
std::optional<std::vector<size_t>> SliceIndexes(const Value* first, const Value* last,
                                                const Value* step, int64_t size) {
  const auto given = [](const Value* value) {
    return value != nullptr && value->kind != Kind::kNone && value->kind != Kind::kUndefined;
  };
  for (const Value* value : {first, last, step}) {
    if (given(value) && !value->IsNumber()) return std::nullopt;
  }
  const int64_t by = given(step) ? step->integer : 1;
  if (by == 0 || by == INT64_MIN) return std::nullopt;
  const int64_t low = by > 0 ? 0 : -1, high = by > 0 ? size : size - 1;
  const auto bound = [&](const Value* value, int64_t otherwise) {
    if (!given(value)) return otherwise;
    const int64_t at = value->integer < 0 ? value->integer + size : value->integer;
    return std::clamp(at, low, high);
  };
  const int64_t begin = bound(first, by > 0 ? low : high), end = bound(last, by > 0 ? high : low);
  std::vector<size_t> indexes;
  for (int64_t at = begin; by > 0 ? at < end : at > end;) {
    indexes.push_back(static_cast<size_t>(at));
    if (by > size || by < -size) break;
    at += by;
  }
  return indexes;
}

// Where each character of `text` begins, and the end.
std::vector<size_t> CharacterStarts(const std::string& text) {
  std::vector<size_t> starts;
  for (size_t at = 0; at < text.size(); NextCodePoint(text, at)) starts.push_back(at);
  starts.push_back(text.size());
  return starts;
}

bool Contains(const Value& container, const Value& item, bool* ok) {
  *ok = true;
  switch (container.kind) {
    case Kind::kUndefined: return false;
    case Kind::kString:
      *ok = item.IsString();
      return *ok && container.text->bytes.find(item.text->bytes) != std::string::npos;
    case Kind::kList:
      return std::any_of(container.list->begin(), container.list->end(),
                         [&](const Value& one) { return Equal(one, item); });
    case Kind::kDict:
      return std::any_of(container.dict->begin(), container.dict->end(), [&](const auto& one) {
        return item.IsString() && one.first == item.text->bytes;
      });
    default: *ok = false; return false;
  }
}

Value LoopMember(const Value& loop, const std::string& name) {
  const int64_t round = loop.integer, size = static_cast<int64_t>(loop.list->size());
  if (name == "index") return Value::Integer(round + 1);
  if (name == "index0") return Value::Integer(round);
  if (name == "revindex") return Value::Integer(size - round);
  if (name == "revindex0") return Value::Integer(size - round - 1);
  if (name == "first") return Value::Bool(round == 0);
  if (name == "last") return Value::Bool(round + 1 == size);
  if (name == "length") return Value::Integer(size);
  const int64_t beside = name == "previtem" ? round - 1 : name == "nextitem" ? round + 1 : -1;
  return beside >= 0 && beside < size ? (*loop.list)[static_cast<size_t>(beside)] : Value();
}

}  // namespace

Value Value::None() { return Make(Kind::kNone, 0); }
Value Value::Bool(bool value) { return Make(Kind::kBool, value); }
Value Value::Integer(int64_t value) { return Make(Kind::kInteger, value); }
Value Value::Namespace(int64_t number) { return Make(Kind::kNamespace, number); }

Value Value::Function(const Node* macro) {
  Value value = Make(Kind::kFunction, 0);
  value.macro = macro;
  return value;
}

Value Value::Loop(int64_t round, std::shared_ptr<const List> items) {
  Value value = Make(Kind::kLoop, round);
  value.list = std::move(items);
  return value;
}

Value Value::String(Text text) {
  Value value = Make(Kind::kString, 0);
  value.text = std::make_shared<const Text>(std::move(text));
  return value;
}

std::optional<Value> Value::ListOf(List items) {
  Value value = Make(Kind::kList, 0);
  for (const Value& item : items) value.depth = std::max(value.depth, item.depth + 1);
  if (items.size() > kMaxItems || value.depth > kMaxValueDepth) return std::nullopt;
  value.list = std::make_shared<const List>(std::move(items));
  return value;
}

std::optional<Value> Value::DictOf(Dict items) {
  Value value = Make(Kind::kDict, 0);
  for (const auto& [key, item] : items) value.depth = std::max(value.depth, item.depth + 1);
  if (items.size() > kMaxItems || value.depth > kMaxValueDepth) return std::nullopt;
  value.dict = std::make_shared<const Dict>(std::move(items));
  return value;
}

Value Value::OfMessage(int64_t index, Value role, Value content) {
  Value value = *DictOf({{"role", std::move(role)}, {"content", std::move(content)}});
  value.message = index;
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
    case Kind::kDict: return !dict->empty();
    default: return true;
  }
}

bool Value::Is(std::string_view test) const {
  if (test == "defined") return kind != Kind::kUndefined;
  if (test == "undefined") return kind == Kind::kUndefined;
  if (test == "none") return kind == Kind::kNone;
  if (test == "string") return kind == Kind::kString;
  if (test == "mapping") return kind == Kind::kDict;
  if (test == "boolean") return kind == Kind::kBool;
  if (test == "integer") return kind == Kind::kInteger;
  if (test == "number") return IsNumber();
  if (test == "true") return kind == Kind::kBool && integer != 0;
  if (test == "false") return kind == Kind::kBool && integer == 0;
  // iterable and sequence; Jinja's Undefined counts as an empty one
  return kind == Kind::kUndefined || kind == Kind::kString || kind == Kind::kList ||
         kind == Kind::kDict || (kind == Kind::kLoop && test == "iterable");
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
  if (kind == Kind::kLoop && key.IsString()) return LoopMember(*this, key.text->bytes);
  if (kind == Kind::kDict) {
    for (const auto& [name, value] : *dict) {
      if (key.IsString() && name == key.text->bytes) return value;
    }
    return Value();
  }
  if ((kind != Kind::kList && kind != Kind::kString) || !key.IsNumber()) return std::nullopt;
  const std::vector<size_t> starts =
      kind == Kind::kString ? CharacterStarts(text->bytes) : std::vector<size_t>();
  const int64_t count =
      static_cast<int64_t>(kind == Kind::kString ? starts.size() - 1 : list->size());
  const int64_t at = key.integer < 0 ? key.integer + count : key.integer;
  if (at < 0 || at >= count) return Value();
  const size_t index = static_cast<size_t>(at);
  if (kind == Kind::kList) return (*list)[index];
  return String(text->Slice(starts[index], starts[index + 1]));
}

std::optional<Value> Value::Slice(const Value* first, const Value* last, const Value* step) const {
  if (kind != Kind::kList && kind != Kind::kString) return std::nullopt;
  const std::vector<size_t> starts =
      kind == Kind::kString ? CharacterStarts(text->bytes) : std::vector<size_t>();
  const size_t count = kind == Kind::kString ? starts.size() - 1 : list->size();
  const auto indexes = SliceIndexes(first, last, step, static_cast<int64_t>(count));
  if (!indexes.has_value()) return std::nullopt;
  if (kind == Kind::kString) {
    Text taken;
    const size_t first_at = indexes->empty() ? 0 : indexes->front();
    if (indexes->size() > 1 && (*indexes)[1] == first_at + 1) {  // in one piece
      return String(text->Slice(starts[first_at], starts[indexes->back() + 1]));
    }
    for (const size_t at : *indexes) taken.Append(text->Slice(starts[at], starts[at + 1]));
    return String(std::move(taken));
  }
  List items;
  for (const size_t at : *indexes) items.push_back((*list)[at]);
  return ListOf(std::move(items));
}

std::optional<List> Value::Items() const {
  List items;
  switch (kind) {
    case Kind::kUndefined: return items;
    case Kind::kList: return *list;
    case Kind::kDict:
      for (const auto& [key, value] : *dict) items.push_back(String({key, {}}));
      return items;
    case Kind::kString: {
      const std::vector<size_t> starts = CharacterStarts(text->bytes);
      if (starts.size() > kMaxItems) return std::nullopt;
      for (size_t i = 0; i + 1 < starts.size(); ++i) {
        items.push_back(String(text->Slice(starts[i], starts[i + 1])));
      }
      return items;
    }
    default: return std::nullopt;
  }
}

bool Equal(const Value& left, const Value& right) {
  if (left.IsNumber() && right.IsNumber()) return left.integer == right.integer;
  if (left.kind != right.kind) return false;
  switch (left.kind) {
    case Kind::kString: return left.text->bytes == right.text->bytes;
    case Kind::kList:
      return std::equal(left.list->begin(), left.list->end(), right.list->begin(),
                        right.list->end(), Equal);
    case Kind::kDict:
      return left.dict->size() == right.dict->size() &&
             std::all_of(left.dict->begin(), left.dict->end(), [&](const auto& one) {
               const auto other =
                   std::find_if(right.dict->begin(), right.dict->end(),
                                [&](const auto& two) { return two.first == one.first; });
               return other != right.dict->end() && Equal(one.second, other->second);
             });
    case Kind::kUndefined:
    case Kind::kNone: return true;
    default: return false;
  }
}

std::optional<Value> Compare(std::string_view op, const Value& left, const Value& right) {
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
    if (left.list->size() + right.list->size() > kMaxItems) return std::nullopt;
    List items = *left.list;
    items.insert(items.end(), right.list->begin(), right.list->end());
    return Value::ListOf(std::move(items));
  }
  if (left.IsNumber() && right.IsNumber()) return Arithmetic(op, left.integer, right.integer);
  return std::nullopt;
}

}  // namespace osler::jinja
