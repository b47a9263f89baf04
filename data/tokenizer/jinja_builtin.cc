// The filters and methods of jinja_value.h.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/tokenizer/jinja_value.h"
#include "data/tokenizer/unicode.h"

namespace osler::jinja {
namespace {

const Value& Argument(const List& arguments, size_t index) {
  static const Value none;
  return index < arguments.size() ? arguments[index] : none;
}

// str.strip(characters); without characters white space goes.
std::optional<Value> Strip(const Text& text, Builtin side, const Value& characters) {
  const bool left = side != Builtin::kRightTrim, right = side != Builtin::kLeftTrim;
  const std::string_view whole = text.bytes;
  size_t begin = 0, end = whole.size();
  if (characters.kind == Kind::kUndefined || characters.kind == Kind::kNone) {
    begin = left ? whole.size() - TrimPythonSpace(whole, true, false).size() : 0;
    end = begin + TrimPythonSpace(whole.substr(begin), false, right).size();
    return Value::String(text.Slice(begin, end));
  }
  if (!characters.IsString()) return std::nullopt;
  const std::string& set = characters.text->bytes;
  if (std::any_of(set.begin(), set.end(), [](char c) { return !absl::ascii_isascii(c); })) {
    return std::nullopt;
  }
  const auto gone = [&](char c) { return set.find(c) != std::string::npos; };
  while (left && begin < end && gone(whole[begin])) ++begin;
  while (right && end > begin && gone(whole[end - 1])) --end;
  return Value::String(text.Slice(begin, end));
}

std::optional<Value> Split(const Text& text, const Value& separator) {
  if (!separator.IsString() || separator.text->bytes.empty()) return std::nullopt;
  const std::string& between = separator.text->bytes;
  List parts;
  size_t from = 0;
  for (size_t hit; (hit = text.bytes.find(between, from)) != std::string::npos;) {
    if (parts.size() > kMaxItems) return std::nullopt;
    parts.push_back(Value::String(text.Slice(from, hit)));
    from = hit + between.size();
  }
  parts.push_back(Value::String(text.Slice(from, text.bytes.size())));
  return Value::ListOf(std::move(parts));
}

std::optional<Value> Replace(const Text& text, const Value& old, const Value& with) {
  if (!old.IsString() || !with.IsString() || old.text->bytes.empty()) return std::nullopt;
  Text out;
  size_t from = 0;
  for (size_t hit; (hit = text.bytes.find(old.text->bytes, from)) != std::string::npos;) {
    out.Append(text.Slice(from, hit));
    out.Append(*with.text);
    from = hit + old.text->bytes.size();
    if (out.bytes.size() > (size_t{1} << 30)) return std::nullopt;
  }
  out.Append(text.Slice(from, text.bytes.size()));
  return Value::String(std::move(out));
}

// Of ASCII only: beyond it case is Python's own affair.
std::optional<Value> Case(const Text& text, Builtin builtin) {
  for (const char c : text.bytes) {
    if (!absl::ascii_isascii(static_cast<unsigned char>(c))) return std::nullopt;
  }
  return Value::String({builtin == Builtin::kUpper ? absl::AsciiStrToUpper(text.bytes)
                                                   : absl::AsciiStrToLower(text.bytes),
                        {}});
}

std::optional<Value> Length(const Value& value) {
  const auto size = [](size_t count) { return Value::Integer(static_cast<int64_t>(count)); };
  if (value.kind == Kind::kUndefined) return size(0);
  if (value.kind == Kind::kList) return size(value.list->size());
  if (value.kind == Kind::kDict) return size(value.dict->size());
  if (!value.IsString()) return std::nullopt;
  size_t count = 0;
  for (size_t at = 0; at < value.text->bytes.size(); ++count) NextCodePoint(value.text->bytes, at);
  return size(count);
}

std::optional<Value> Join(const Value& value, const Value& between) {
  const auto items = value.Items();
  const auto separator = between.Printed();
  if (!items.has_value() || !separator.has_value()) return std::nullopt;
  Text out;
  for (size_t i = 0; i < items->size(); ++i) {
    if (i > 0) out.Append(*separator);
    const auto text = (*items)[i].Printed();
    if (!text.has_value() || out.bytes.size() > (size_t{1} << 30)) return std::nullopt;
    out.Append(*text);
  }
  return Value::String(std::move(out));
}

std::optional<Value> Pairs(const Value& value, Builtin builtin) {
  if (value.kind != Kind::kDict) return std::nullopt;
  List items;
  for (const auto& [key, item] : *value.dict) {
    if (builtin == Builtin::kValues) {
      items.push_back(item);
    } else if (builtin == Builtin::kKeys) {
      items.push_back(Value::String({key, {}}));
    } else {
      auto pair = Value::ListOf({Value::String({key, {}}), item});
      if (!pair.has_value()) return std::nullopt;
      items.push_back(*std::move(pair));
    }
  }
  return Value::ListOf(std::move(items));
}

std::optional<Value> Edge(const Value& value, Builtin builtin) {
  auto items = value.Items();
  if (!items.has_value() || (builtin == Builtin::kLast && value.kind == Kind::kDict)) {
    return std::nullopt;
  }
  if (items->empty()) return Value();
  return builtin == Builtin::kFirst ? items->front() : items->back();
}

// Of the tests that take an argument only equality is known.
std::optional<Value> Filtered(const Value& value, Builtin builtin, const Value& test,
                              const Value& argument) {
  auto items = value.Items();
  if (!items.has_value() || !test.IsString()) return std::nullopt;
  const std::string& name = test.text->bytes;
  if (name != "equalto" && name != "==" && name != "eq") return std::nullopt;
  List kept;
  for (Value& item : *items) {
    if (Equal(item, argument) == (builtin == Builtin::kSelect)) kept.push_back(std::move(item));
  }
  return Value::ListOf(std::move(kept));
}

void AppendJsonString(std::string_view text, std::string& out) {
  out += '"';
  for (const char c : text) {
    static constexpr std::string_view kEscaped = "\"\"\\\\\nn\rr\tt\bb\ff";
    size_t at = 0;
    while (at < kEscaped.size() && kEscaped[at] != c) at += 2;
    if (at < kEscaped.size()) {
      out += '\\';
      out += kEscaped[at + 1];
    } else if (static_cast<unsigned char>(c) < 0x20) {
      absl::StrAppendFormat(&out, "\\u%04x", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  out += '"';
}

// The depth of values is bounded (kMaxValueDepth).
bool AppendJson(const Value& value, int64_t indent, int64_t level, std::string& out) {
  switch (value.kind) {
    case Kind::kNone: out += "null"; return true;
    case Kind::kBool: out += value.integer != 0 ? "true" : "false"; return true;
    case Kind::kInteger: absl::StrAppend(&out, value.integer); return true;
    case Kind::kString: AppendJsonString(value.text->bytes, out); return true;
    case Kind::kList:
    case Kind::kDict: break;
    default: return false;
  }
  const bool is_dict = value.kind == Kind::kDict;
  const size_t count = is_dict ? value.dict->size() : value.list->size();
  out += is_dict ? '{' : '[';
  const auto line = [&](int64_t at) {
    if (indent >= 0) out.append("\n").append(static_cast<size_t>(indent * at), ' ');
  };
  for (size_t i = 0; i < count; ++i) {
    if (i > 0) out += indent >= 0 ? "," : ", ";
    line(level + 1);
    if (is_dict) {
      AppendJsonString((*value.dict)[i].first, out);
      out += ": ";
    }
    const Value& item = is_dict ? (*value.dict)[i].second : (*value.list)[i];
    if (!AppendJson(item, indent, level + 1, out)) return false;
  }
  if (count > 0) line(level);
  out += is_dict ? '}' : ']';
  return true;
}

std::optional<Value> JsonFilter(const Value& value, const Value& ascii, const Value& indent) {
  if (ascii.IsTrue() || (indent.kind > Kind::kNone && !indent.IsNumber())) return std::nullopt;
  const int64_t by = indent.IsNumber() ? indent.integer : -1;
  if (by > 64 || (by < 0 && indent.IsNumber())) return std::nullopt;
  auto json = ToJson(value, by);
  if (!json.has_value()) return std::nullopt;
  return Value::String({*std::move(json), {}});
}

}  // namespace

std::optional<std::string> ToJson(const Value& value, int64_t indent) {
  std::string out;
  if (!AppendJson(value, indent, 0, out)) return std::nullopt;
  return out;
}

std::optional<Value> CallMethod(Builtin builtin, const Value& object, const List& arguments) {
  const Value &first = Argument(arguments, 0), &second = Argument(arguments, 1);
  switch (builtin) {
    case Builtin::kItems:
    case Builtin::kKeys:
    case Builtin::kValues: return Pairs(object, builtin);
    case Builtin::kGet: {
      if (object.kind != Kind::kDict) return std::nullopt;
      const Value found = *object.Item(first);
      if (found.kind != Kind::kUndefined) return found;
      return arguments.size() > 1 && second.kind != Kind::kUndefined ? second : Value::None();
    }
    default: break;
  }
  if (!object.IsString()) return std::nullopt;
  const Text& text = *object.text;
  switch (builtin) {
    case Builtin::kTrim:
    case Builtin::kLeftTrim:
    case Builtin::kRightTrim: return Strip(text, builtin, first);
    case Builtin::kUpper:
    case Builtin::kLower: return Case(text, builtin);
    case Builtin::kReplace: return Replace(text, first, second);
    case Builtin::kSplit: return Split(text, first);
    case Builtin::kStartsWith:
    case Builtin::kEndsWith:
      if (!first.IsString()) return std::nullopt;
      return Value::Bool(builtin == Builtin::kStartsWith
                             ? absl::StartsWith(text.bytes, first.text->bytes)
                             : absl::EndsWith(text.bytes, first.text->bytes));
    default: return std::nullopt;
  }
}

std::optional<Value> CallFilter(Builtin builtin, const Value& value, const List& arguments) {
  const Value &first = Argument(arguments, 0), &second = Argument(arguments, 1);
  switch (builtin) {
    case Builtin::kLength: return Length(value);
    case Builtin::kToJson: return JsonFilter(value, first, second);
    case Builtin::kItems:
      if (value.kind == Kind::kUndefined) return Value::ListOf({});
      return Pairs(value, builtin);
    case Builtin::kSelect:
    case Builtin::kReject: return Filtered(value, builtin, first, second);
    case Builtin::kJoin: return Join(value, first);
    case Builtin::kFirst:
    case Builtin::kLast: return Edge(value, builtin);
    case Builtin::kDefault: {
      const bool replaced = value.kind == Kind::kUndefined || (second.IsTrue() && !value.IsTrue());
      if (!replaced) return value;
      return first.kind == Kind::kUndefined ? Value::String({}) : first;
    }
    case Builtin::kList: {
      auto items = value.Items();
      if (!items.has_value()) return std::nullopt;
      return Value::ListOf(*std::move(items));
    }
    default: break;
  }
  // The rest take str(value).
  auto text = value.Printed();
  if (!text.has_value()) return std::nullopt;
  const Value string = Value::String(*std::move(text));
  return builtin == Builtin::kString ? string : CallMethod(builtin, string, arguments);
}

}  // namespace osler::jinja
