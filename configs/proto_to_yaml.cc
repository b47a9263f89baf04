#include <algorithm>
#include <array>
#include <charconv>
#include <string>
#include <string_view>

#include <fmt/format.h>
#include <google/protobuf/message.h>

#include "absl/strings/ascii.h"
#include "base/check.h"
#include "configs/config.h"
#include "configs/yaml_scalar.h"

namespace osler {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Shortest form that reads back to the same double, always with a point: YAML 1.1 readers take
// 1e-30 for a string.
std::string NumberText(double value) {
  std::array<char, 32> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
  std::string text(buffer.data(), end);
  const size_t exponent = text.find('e');
  const size_t mantissa = exponent == std::string::npos ? text.size() : exponent;
  if (text.find('.') == std::string::npos) text.insert(mantissa, ".0");
  return text;
}

// A plain word that no YAML reader, 1.1 or 1.2, takes for anything but text.
bool IsPlainWord(const std::string& text) {
  if (text.empty() || !(absl::ascii_isalpha(text[0]) || text[0] == '/' || text[0] == '_'))
    return false;
  const auto fine = [](char c) {
    return absl::ascii_isalnum(c) || std::string_view("/._-").find(c) != std::string_view::npos;
  };
  if (!std::all_of(text.begin(), text.end(), fine)) return false;
  constexpr std::array<std::string_view, 9> kReserved = {"y",   "n",    "yes",   "no",  "on",
                                                         "off", "true", "false", "null"};
  return std::find(kReserved.begin(), kReserved.end(), absl::AsciiStrToLower(text)) ==
         kReserved.end();
}

// True where a UTF-8 sequence at `i` encodes a line break or a byte order mark, which readers fold
// or drop: U+0085 (and the other C1 controls), U+2028, U+2029, U+FEFF.
bool NeedsUnicodeEscape(std::string_view text, size_t i, char32_t& code, size_t& length) {
  const auto byte = [&](size_t k) {
    return static_cast<unsigned char>(i + k < text.size() ? text[i + k] : 0);
  };
  if (byte(0) == 0xc2 && byte(1) >= 0x80 && byte(1) < 0xa0) {
    code = byte(1);
    length = 2;
    return true;
  }
  length = 3;
  code = (byte(0) & 0x0fU) << 12 | (byte(1) & 0x3fU) << 6 | (byte(2) & 0x3fU);
  return (byte(0) & 0xf0) == 0xe0 && (code == 0x2028 || code == 0x2029 || code == 0xfeff);
}

std::string QuotedText(const std::string& text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    char32_t code = 0;
    size_t length = 0;
    if (NeedsUnicodeEscape(text, i, code, length)) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(code));
      i += length - 1;
    } else if (byte == '"' || byte == '\\') {
      out += {'\\', text[i]};
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += text[i];
    }
  }
  out += '"';
  return out;
}

// The scalar `field` of `message`; item `index` of it when it is a list.
std::string ScalarText(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& r = *message.GetReflection();
  const bool list = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return std::to_string(list ? r.GetRepeatedInt32(message, &field, index)
                                 : r.GetInt32(message, &field));
    case FieldDescriptor::CPPTYPE_INT64:
      return std::to_string(list ? r.GetRepeatedInt64(message, &field, index)
                                 : r.GetInt64(message, &field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return std::to_string(list ? r.GetRepeatedUInt64(message, &field, index)
                                 : r.GetUInt64(message, &field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return NumberText(list ? r.GetRepeatedDouble(message, &field, index)
                             : r.GetDouble(message, &field));
    case FieldDescriptor::CPPTYPE_BOOL:
      return (list ? r.GetRepeatedBool(message, &field, index) : r.GetBool(message, &field))
                 ? "true"
                 : "false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return EnumSpelling(
          *(list ? r.GetRepeatedEnum(message, &field, index) : r.GetEnum(message, &field)));
    case FieldDescriptor::CPPTYPE_STRING: {
      const std::string text =
          list ? r.GetRepeatedString(message, &field, index) : r.GetString(message, &field);
      return IsPlainWord(text) ? text : QuotedText(text);
    }
    default: OSLER_CHECK(false && "a field type that the schemas do not use");
  }
  return "";
}

void Print(const Message& message, const std::string& indent, const std::string& first,
           std::string& out);

// One field as lines; `lead` stands before its key.
void PrintField(const Message& message, const FieldDescriptor& field, const std::string& indent,
                const std::string& lead, std::string& out) {
  const Reflection& r = *message.GetReflection();
  const std::string deeper = indent + "  ";
  out += lead + field.name() + ":";
  if (!field.is_repeated()) {
    if (field.message_type() == nullptr) {
      out.append(" ").append(ScalarText(message, field, 0)).append("\n");
      return;
    }
    out += "\n";
    Print(r.GetMessage(message, &field), deeper, deeper, out);
    return;
  }
  const int size = r.FieldSize(message, &field);
  if (field.message_type() == nullptr) {
    for (int i = 0; i < size; ++i)
      out.append(i == 0 ? " [" : ", ").append(ScalarText(message, field, i));
    out += "]\n";
    return;
  }
  out += "\n";
  for (int i = 0; i < size; ++i) {
    Print(r.GetRepeatedMessage(message, &field, i), deeper + "  ", deeper + "- ", out);
  }
}

// The set fields of `message`, one or more lines each; `first` stands before the first of them,
// `indent` before the others.
void Print(const Message& message, const std::string& indent, const std::string& first,
           std::string& out) {
  const Reflection& r = *message.GetReflection();
  bool is_first = true;
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message.GetDescriptor()->field(i);
    const bool present =
        field.is_repeated() ? r.FieldSize(message, &field) > 0 : r.HasField(message, &field);
    if (!present) continue;
    PrintField(message, field, indent, is_first ? first : indent, out);
    is_first = false;
  }
  if (is_first) out += first + "{}\n";
}

}  // namespace

std::string ToYaml(const Message& message) {
  std::string out;
  Print(message, "", "", out);
  return out;
}

}  // namespace osler
