#include "configs/yaml_scalar.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <system_error>

#include <fmt/format.h>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/charconv.h"
#include "absl/strings/numbers.h"
#include "base/check.h"
#include "base/errors.h"

namespace osler {
namespace {

using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// The number grammars are spelt out, because YAML 1.1 readers disagree with 1.2 about 010, 1_000,
// 0x10 and 1e-3.
size_t SkipDigits(const std::string& text, size_t i) {
  while (i < text.size() && std::isdigit(static_cast<unsigned char>(text[i]))) ++i;
  return i;
}

size_t SkipSign(const std::string& text, size_t i) {
  return i < text.size() && (text[i] == '-' || text[i] == '+') ? i + 1 : i;
}

bool LooksLikeInteger(const std::string& text) {
  const size_t first = SkipSign(text, 0);
  return first < text.size() && SkipDigits(text, first) == text.size();
}

// [-+]? (digits [. digits*] | . digits) ([eE] [-+]? digits)?
bool LooksLikeNumber(const std::string& text) {
  const size_t start = SkipSign(text, 0);
  size_t i = SkipDigits(text, start);
  size_t digits = i - start;
  if (i < text.size() && text[i] == '.') {
    const size_t fraction = i + 1;
    i = SkipDigits(text, fraction);
    digits += i - fraction;
  }
  if (digits == 0) return false;
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    const size_t exponent = SkipSign(text, i + 1);
    i = SkipDigits(text, exponent);
    if (i == exponent) return false;
  }
  return i == text.size();
}

absl::Status Expected(const std::string& what, const YAML::Node& node,
                      const std::string& advice = {}) {
  return ConfigError(fmt::format("expected {}, found {}{}{}", what, DescribeNode(node),
                                 advice.empty() ? "" : "; ", advice));
}

// absl::OkStatus() when the node may hold a number or boolean: present and not quoted.
absl::Status CheckPlain(const YAML::Node& node, const std::string& what) {
  if (node.Tag() == "!") return Expected(what, node, "remove the quotes");
  return absl::OkStatus();
}

template <typename Int>
absl::StatusOr<Int> ParseInteger(const YAML::Node& node) {
  constexpr Int kLow = std::numeric_limits<Int>::min(), kHigh = std::numeric_limits<Int>::max();
  const std::string what = "a whole number such as 8";
  if (absl::Status plain = CheckPlain(node, what); !plain.ok()) return plain;
  const std::string& text = node.Scalar();
  if (!LooksLikeInteger(text)) {
    return Expected(what, node,
                    LooksLikeNumber(text) ? "write it without a point or an exponent" : "");
  }
  const size_t first = SkipSign(text, 0);
  if (text[first] == '0' && text.size() > first + 1) {
    return Expected(what, node, "remove the leading zero (some YAML readers take it for octal)");
  }
  Int value = 0;
  if (!absl::SimpleAtoi(text[0] == '+' ? text.substr(1) : text, &value)) {
    return Expected(fmt::format("a whole number from {} to {}", kLow, kHigh), node);
  }
  return value;
}

absl::StatusOr<double> ParseDouble(const YAML::Node& node) {
  const std::string what = "a number such as 1.0e-3";
  if (absl::Status plain = CheckPlain(node, what); !plain.ok()) return plain;
  const std::string& text = node.Scalar();
  if (!LooksLikeNumber(text)) return Expected(what, node);
  double value = 0;
  const char* begin = text.data() + (text[0] == '+' ? 1 : 0);
  const auto result = absl::from_chars(begin, text.data() + text.size(), value);
  if (result.ec == std::errc::result_out_of_range || !std::isfinite(value)) {
    return Expected("a number that fits 64-bit floating point", node);
  }
  return value;
}

absl::StatusOr<bool> ParseBool(const YAML::Node& node) {
  if (absl::Status plain = CheckPlain(node, "true or false"); !plain.ok()) return plain;
  const std::string& text = node.Scalar();
  if (text == "true") return true;
  if (text == "false") return false;
  const std::string lower = absl::AsciiStrToLower(text);
  const bool yes =
      lower == "yes" || lower == "on" || lower == "y" || lower == "true" || lower == "1";
  const bool no =
      lower == "no" || lower == "off" || lower == "n" || lower == "false" || lower == "0";
  return Expected("true or false", node, yes ? "write true" : no ? "write false" : "");
}

absl::StatusOr<const EnumValueDescriptor*> ParseEnum(const YAML::Node& node,
                                                     const EnumDescriptor& type) {
  std::string choices;
  for (int i = 0; i < type.value_count(); ++i) {
    const EnumValueDescriptor* value = type.value(i);
    if (EnumSpelling(*value) == node.Scalar()) return value;
    choices += (i == 0 ? "" : ", ") + EnumSpelling(*value);
  }
  return Expected(type.value_count() == 1 ? choices : "one of " + choices, node);
}

template <typename T, typename Set, typename Add>
absl::Status Store(const absl::StatusOr<T>& value, const FieldDescriptor& field, Message& message,
                   Set set, Add add) {
  if (!value.ok()) return value.status();
  const Reflection* reflection = message.GetReflection();
  if (field.is_repeated()) {
    (reflection->*add)(&message, &field, *value);
  } else {
    (reflection->*set)(&message, &field, *value);
  }
  return absl::OkStatus();
}

}  // namespace

std::string EnumSpelling(const EnumValueDescriptor& value) {
  return absl::AsciiStrToLower(value.name());
}

std::string Excerpt(const std::string& text, size_t longest) {
  size_t end = std::min(longest, text.size());
  while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) {
    --end;  // not inside a UTF-8 sequence
  }
  std::string shown;
  for (size_t i = 0; i < end; ++i) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(text[i]))) {
      shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i]));
    } else {
      shown += text[i];
    }
  }
  return end < text.size() ? shown + "…" : shown;
}

std::string DescribeNode(const YAML::Node& node) {
  constexpr size_t kLongest = 60;
  if (!node.IsDefined() || node.IsNull()) return "nothing";
  if (node.IsMap()) return "a map";
  if (node.IsSequence()) return "a list";
  return fmt::format("{0}{1}{0}", node.Tag() == "!" ? "\"" : "'", Excerpt(node.Scalar(), kLongest));
}

absl::Status SetScalar(const YAML::Node& node, const FieldDescriptor& field, Message& message) {
  if (!node.IsScalar()) {
    return Expected("a single value", node,
                    node.IsNull() ? "give it a value, or delete the key to use the default" : "");
  }
  if (const std::string& tag = node.Tag(); !tag.empty() && tag != "?" && tag != "!") {
    return ConfigError("YAML tags are not supported; write the plain value");
  }
  using R = Reflection;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return Store(ParseInteger<int32_t>(node), field, message, &R::SetInt32, &R::AddInt32);
    case FieldDescriptor::CPPTYPE_INT64:
      return Store(ParseInteger<int64_t>(node), field, message, &R::SetInt64, &R::AddInt64);
    case FieldDescriptor::CPPTYPE_UINT64:
      return Store(ParseInteger<uint64_t>(node), field, message, &R::SetUInt64, &R::AddUInt64);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return Store(ParseDouble(node), field, message, &R::SetDouble, &R::AddDouble);
    case FieldDescriptor::CPPTYPE_BOOL:
      return Store(ParseBool(node), field, message, &R::SetBool, &R::AddBool);
    case FieldDescriptor::CPPTYPE_ENUM:
      return Store(ParseEnum(node, *field.enum_type()), field, message, &R::SetEnum, &R::AddEnum);
    case FieldDescriptor::CPPTYPE_STRING:
      return Store(absl::StatusOr<std::string>(node.Scalar()), field, message, &R::SetString,
                   &R::AddString);
    default: OSLER_CHECK(false && "a field type that the schemas do not use");
  }
  return absl::OkStatus();
}

}  // namespace osler
