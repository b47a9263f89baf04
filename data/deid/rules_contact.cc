// Phone, fax, e-mail, URL and IP addresses.
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/deid/rules.h"

namespace osler {
namespace {

std::string Phone(std::string_view, std::string_view) { return "[PHONE]"; }
std::string Fax(std::string_view, std::string_view) { return "[FAX]"; }
std::string Email(std::string_view, std::string_view) { return "[EMAIL]"; }
std::string Url(std::string_view, std::string_view) { return "[URL]"; }
std::string Ip(std::string_view, std::string_view) { return "[IP]"; }

constexpr char kExtension[] = "(?:\\s?,?\\s?(?:x|ext\\.?|extension|#)\\s?:?\\s?[0-9]{1,6}\\b)?";
// Seven to fifteen digits as people group them.
constexpr char kAnyNumber[] = "\\+?\\(?\\+?[0-9](?:[ .\\-/()]{0,2}[0-9]){6,14}(?![0-9])";
constexpr char kQuantity[] =
    "(?!\\s?(?:mg|mcg|g|ml|dl|l|cm|mm|kg|units?|iu|hours?|hrs?|days?|weeks?|months?|years?|cells?|"
    "copies|kcal|cal|"
    "calories|steps|%|patients|subjects|/)\\b)";

// clang-format off: the patterns are wrapped where they can be read.

std::vector<std::string> PhonePatterns() {
  const std::string phone_word =
      "(?i)\\b(?:(?:tele)?phones?|tel|ph|cell(?:ular|phone)?|mobile|mob|pager|beeper|page[dr]?|"
      "call(?:ed|s|ing|back)?|"
      "dial(?:ed|ing)?|reach(?:ed|able|ing)?|contact(?:ed|s|ing)?|whatsapp|text(?:ed|ing)?|ring|"
      "answering|hotline|"
      "helpline|voicemail|land ?line|home|work|office|number(?: is|:))\\b";
  return {
      // +1 (617) 555-0100 ext. 12, 617.555.0100, (617)555-0100
      absl::StrCat(
          "(?i)(?<![0-9+])(?<![0-9][-.])(?:(?:\\+?1|001)[ .-]{0,2})?(?:\\([0-9]{3}\\)[ .-]{0,2}|"
          "[0-9]{3}[.\\-/] ?|[2-9][0-9]{2} )[0-9]{3}[ .\\-]{1,2}[0-9]{4}(?![0-9])(?!-[0-9])",
          kExtension),
      // +44 20 7946 0958, +46 (0)8 928 571 38, 0044…, 011 44…
      absl::StrCat("(?i)(?<![0-9])(?:\\+ ?|0{1,2}(?=[1-9][0-9]{0,2}[ .-]\\(?[0-9])|011[ .-])"
                   "(?=(?:[ .\\-/()]{0,2}[0-9]){8,15}(?![0-9]))[0-9]{1,4}(?:[ "
                   ".\\-/]{0,2}\\(?[0-9]{1,8}\\)?){1,6}(?![0-9])",
                   kExtension),
      // 07700 063 966, 01.84.17.61.18, (08) 8747 6301, 0961-7596216, 71-33-52-22
      "(?<![0-9.,/+:-])(?![0-9]{2}[./-][0-9]{2}[./-](?:19|20)[0-9]{2}(?![0-9]))"
      "\\(?0[0-9]{1,4}\\)?(?:[ .\\-/][0-9]{2,4}){2,4}(?![0-9]|[.:/][0-9])",
      "(?<![0-9.,/+:-])0[0-9]{2,4}[ -][0-9]{6,8}(?![0-9])",
      "(?<![0-9])\\([0-9]{2,4}\\) ?[0-9]{3,4}[ -][0-9]{4}(?![0-9])",
      "(?<![0-9.-])[0-9]{2}(?:([.-])[0-9]{2})(?:\\g{-1}[0-9]{2}){2}(?![0-9]|[.-][0-9])",
      // 555-0100, 867-5309: what does not look like a range of round numbers
      absl::StrCat("(?i)(?<![0-9.,/-])(?<![<>=(] )(?:555[-. "
                   "][0-9]{4}|[2-9][0-9]{2}-0[0-9]{3})(?![0-9]|[-./,][0-9])",
                   kExtension, kQuantity),
      absl::StrCat("(?i)(?<![0-9.,/(=<>-])(?<!range |range: |from |iqr |between |[<>=(:] |, "
                   ")[2-9][0-9]{2}-[1-9][0-9]{2}[1-9]"
                   "(?![0-9]|[-./,)][0-9]|\\))",
                   kExtension, kQuantity),
      // call 467 3395, cell: 9472 7916
      absl::StrCat(phone_word, "(?:[^0-9\\n]|\\n(?![\\n])){0,24}?(?<id>", kAnyNumber, kExtension,
                   ")", kQuantity),
      absl::StrCat(phone_word, "[^0-9\\n]{0,24}?", kAnyNumber, kExtension,
                   "(?:\\s?(?:or|and|/|,|;)\\s?(?:at )?)(?<id>", kAnyNumber, kExtension, ")",
                   kQuantity),
      absl::StrCat("(?i)(?<![0-9.,/+-])(?<id>", kAnyNumber, kExtension,
                   ")(?= ?[(-]? ?(?:office|home|cell|mobile|work|pager|voicemail)\\b)"),
      // ext. 4432, pager 12345, call x4432, call 5-1234
      "(?i)\\b(?:ext(?:ension)?)\\b[.: #]{1,3}(?<id>[0-9]{3,6})(?![0-9]| ?(?:degrees|deg)\\b)",
      "(?i)\\b(?:pager|beeper)\\b[^0-9\\n\\x01]{0,12}(?<id>[0-9]{3,7})(?![0-9])",
      "(?i)\\b(?:call|dial|ext|at|phone|office)\\.?\\s(?:me at "
      ")?(?<id>x-?[0-9]{3,6}|[0-9]-[0-9]{4})(?![0-9-])",
  };
}

std::vector<std::string> FaxPatterns() {
  return {
      absl::StrCat("(?i)\\b(?:tele)?fax(?:ed|es|imile)?\\b(?:[^0-9\\n]|\\n(?![\\n])){0,24}?(?<id>",
                   kAnyNumber, kExtension, ")"),
      absl::StrCat("(?i)\\bfacsimile\\b[^0-9\\n]{0,24}?(?<id>", kAnyNumber, kExtension, ")"),
      absl::StrCat("(?i)(?<id>", kAnyNumber, ")(?= ?\\(?fax\\b)"),
  };
}

std::vector<std::string> EmailPatterns() {
  const std::string at = "(?:\\(at\\)|\\[at\\]|\\{at\\})";
  const std::string local = "(?i)(?<![\\p{L}0-9._%+-])[\\p{L}0-9._%+-]{1,64}+ ?";
  return {
      "(?i)(?<![\\p{L}0-9._%+'-])[\\p{L}0-9._%+'-]{1,128}+ ?@ "
      "?[\\p{L}0-9](?:[\\p{L}0-9-]{0,62}\\.){1,6}[\\p{L}]{2,24}\\b",
      // Spelled out: name (at) example (dot) com, name[at]example.com
      absl::StrCat(local, "(?:", at,
                   "| at ) ?[\\p{L}0-9-]{1,63}"
                   "(?: ?(?:\\(dot\\)|\\[dot\\]|\\{dot\\}| dot ) ?[\\p{L}0-9-]{2,24}){1,3}\\b"),
      absl::StrCat(local, at, " ?[\\p{L}0-9-]{1,63}(?:\\.[\\p{L}0-9-]{2,24}){1,3}\\b"),
  };
}

std::vector<std::string> UrlPatterns() {
  const char* top =
      "(?:com|org|net|edu|gov|mil|info|biz|io|co\\.uk|org\\.uk|ac\\.uk|nhs\\.uk|com\\.au|com\\.br|"
      "de|fr|ca|eu|"
      "ch|nl)";
  const char* rest = "(?:[/?#](?:[^\\s<>\"'\\x01]{0,2000}[^\\s<>\"'\\x01.,;:!?)\\]}])?)?";
  return {
      "(?i)\\b(?:https?|ftps?|sftp|wss?|file)://"
      "[^\\s<>\"'\\x01]{0,2000}[^\\s<>\"'\\x01.,;:!?)\\]}]/?",
      absl::StrCat("(?i)\\bwww\\.[a-z0-9-]{1,63}(?:\\.[a-z0-9-]{1,63}){1,5}(?::[0-9]{1,5})?", rest),
      absl::StrCat(
          "(?i)(?<![\\p{L}0-9@._-])(?=[0-9-]{0,63}[a-z])(?:[a-z0-9][a-z0-9-]{0,62}\\.){1,5}", top,
          "\\b(?![@\\w-])(?!\\.\\w)(?::[0-9]{1,5}\\b)?", rest),
  };
}

std::vector<std::string> IpPatterns() {
  const char* octet = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|0?[1-9][0-9]|0{0,2}[0-9])";
  const char* hex = "[0-9a-f]{1,4}";
  return {
      // Not an enzyme's number: EC 3.1.1.11
      absl::StrCat("(?<![0-9]|[0-9]\\.|EC )(?:", octet, "\\.){3}", octet,
                   "(?:/[0-9]{1,2}|:[0-9]{1,5})?(?![0-9]|\\.[0-9])"),
      absl::StrCat("(?i)(?<![\\w:])(?:", hex, ":){7}", hex, "(?![\\w:])"),
      // With "::"; a digit somewhere keeps out text such as "a::b".
      absl::StrCat("(?i)(?<![\\w:])(?=[0-9a-f:]{0,39}[0-9])(?:", hex, "(?::", hex,
                   "){0,6})?::(?:", hex, "(?::", hex, "){0,6})?(?:%[a-z0-9]{1,12})?(?![\\w:])"),
  };
}

// clang-format on

}  // namespace

std::vector<RuleSpec> BarePhoneRules() {
  return {{"phone",
           1,
           Phone,
           {absl::StrCat("(?i)(?<![0-9.+])1?[2-9][0-9]{2}[2-9][0-9]{6}(?![0-9])", kExtension)}}};
}

std::vector<RuleSpec> ContactRules() {
  return {
      {"fax", 1, Fax, FaxPatterns()},       {"phone", 1, Phone, PhonePatterns()},
      {"email", 1, Email, EmailPatterns()}, {"url", 1, Url, UrlPatterns()},
      {"ip", 1, Ip, IpPatterns()},
  };
}

}  // namespace osler
