// Dates and ages. A date keeps its year, unless the year tells of an age over 89.
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "data/deid/rules.h"

namespace osler {
namespace {

// Someone alive in an earlier year would be over 89 today. A constant of the policy and not the
// clock, so that a rebuild gives the same bits; raising it is a new version of the rule.
constexpr int kOldestYearKept = 1937;
// Two-digit years up to this one are of the 2000s.
constexpr int kLastYearOfThisCentury = 26;

std::string DateSurrogate(std::string_view, std::string_view year) {
  int value = 0;
  for (const char c : year) value = value * 10 + (c - '0');
  if (year.size() == 2) value += value <= kLastYearOfThisCentury ? 2000 : 1900;
  if (year.empty() || value < kOldestYearKept) return "[DATE]";
  return absl::StrCat("[DATE ", value, "]");
}

std::string AgeSurrogate(std::string_view, std::string_view) { return "[AGE 90+]"; }

std::string Join(std::initializer_list<std::string_view> parts) {
  std::string all;
  for (const std::string_view part : parts) all += part;
  return all;
}

// clang-format off: the patterns are wrapped where they can be read.

constexpr std::string_view kDay = "(?:3[01]|[12][0-9]|0?[1-9])";
constexpr std::string_view kMonth = "(?:1[0-2]|0?[1-9])";
constexpr std::string_view kYear = "(?<y>(?:1[89]|20)[0-9]{2})";
constexpr std::string_view kShortYear = "(?<y>[0-9]{2})";
constexpr std::string_view kOrdinal = "(?:\\s?(?:st|nd|rd|th))";
constexpr std::string_view kMonthName =
    "(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)"
    "?|"
    "oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\\b\\.?";
// Where a day and no year follows: "may" is a verb unless it is capital.
constexpr std::string_view kSureMonthName =
    "(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|(?-i:May|MAY)|june?|july?|aug(?:ust)?|"
    "sept?(?:ember)?|"
    "oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\\b\\.?";
constexpr std::string_view kSpelledDay =
    "(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|"
    "thirteenth|"
    "(?:four|fif|six|seven|eigh|nine)teenth|twentieth|twenty[- "
    "](?:first|second|third|fourth|fifth|sixth|seventh|"
    "eighth|ninth)|thirtieth|thirty[- ]first)";
constexpr std::string_view kWeekday =
    "(?:\\b(?:mon|tues?|wed(?:nes)?|thu(?:rs?)?|fri|sat(?:ur)?|sun)(?:day)?\\b\\.?,?\\s{1,2}(?:the "
    ")?)?";
constexpr std::string_view kClock =
    "(?:(?:T|\\s{1,2}|, ?)[0-2]?[0-9]:[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]{1,9})?)?"
    "(?: ?(?:Z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2})\\b)?)?";
// What may follow a number that is no day: units, doses, scales.
constexpr std::string_view kNoUnit =
    "(?!\\s{0,2}(?:mg|mcg|g|ml|dl|l|cm|mm|kg|mmhg|units?|hours?|hrs?|minutes?|mins?|days?|weeks?|"
    "wks?|months?|years?|"
    "yrs?|tabs?|tablets?|pills?|capsules?|doses?|cups?|packs?|ppd|inch(?:es)?|in "
    "severity|strength|pain|scale|"
    "systolic|diastolic|murmur|life|normal|ns|teaspoons?|tsp|way|of\\b|%)\\b|\\s{0,2}%)";
constexpr std::string_view kDateContext =
    "\\b(?:on|dated?|dates|since|until|till|through|thru|from|between|before|after|as "
    "of|due|effective|"
    "admit(?:ted)?|admission|discharged?|appointment|appt|visit|seen|scheduled|surgery|exam|"
    "birthday|week of|dob|"
    "d\\.o\\.b\\.?|born|mondays?|tuesdays?|wednesdays?|thursdays?|fridays?|saturdays?|sundays?|mon|"
    "tues?|wed|"
    "thurs?|fri|sat|sun)\\b[\\s:,=.(-]{1,4}";

std::vector<std::string> NumericDates() {
  const std::string day_month = Join({"(?:", kMonth, "S", kDay, "|", kDay, "S", kMonth, ")S"});
  const auto separated = [&](std::string_view separator) {
    return absl::StrReplaceAll(day_month,
                               {{"S", absl::string_view(separator.data(), separator.size())}});
  };
  return {
      // 3/14/2019, 14 / 3 / 2019, 03-14-2019, 14.03.2019
      Join({"(?i)", kWeekday, "(?<![0-9/])", separated(" ?/ ?"), kYear, kClock, "(?![0-9/])"}),
      Join({"(?i)", kWeekday, "(?<![0-9-])", separated("-"), kYear, kClock, "(?![0-9]|-[0-9])"}),
      Join(
          {"(?i)", kWeekday, "(?<![0-9.])", separated("\\."), kYear, kClock, "(?![0-9]|\\.[0-9])"}),
      // 3/14/19, 3-14-19, 14.03.19
      Join({"(?i)", kWeekday, "(?<![0-9/])", separated("/"), kShortYear, "(?![0-9/])", kNoUnit}),
      Join({"(?i)", kWeekday, "(?<![0-9-])(?<![0-9]\\.)", separated("-"), kShortYear,
            "(?![0-9]|[-./][0-9])", kNoUnit}),
      Join({"(?i)(?<![0-9.])(?:(?:0[1-9]|1[0-2])\\.[0-3][0-9]|[0-3][0-9]\\.(?:0[1-9]|1[0-2]))\\.",
            kShortYear, "(?![0-9]|\\.[0-9])", kNoUnit}),
      // 2019-03-14T10:22:05Z, 2019/3/14, 2019.03.14
      Join({"(?i)(?<![0-9])", kYear, "(?:-", kMonth, "-|/", kMonth, "/|\\.", kMonth, "\\.)", kDay,
            "(?![0-9])", kClock}),
      // 20190314, 20190314102205
      "(?<![0-9.])(?<y>(?:19|20)[0-9]{2})(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:T?[0-9]{4}(?"
      ":[0-9]{2})?Z?)?"
      "(?![0-9])",
      // 03/2019, 2019-03
      Join({"(?<![0-9/.])", kMonth, " ?/ ?", kYear, "(?![0-9/])"}),
      Join({"(?<![0-9/.-])", kYear, "[-/](?:0[1-9]|1[0-2])(?![0-9]|[-/][0-9])"}),
  };
}

// Day and month in digits, no year: sure with a leading zero, otherwise only after words that
// announce a date.
std::vector<std::string> DayMonthDates() {
  const std::string either = Join({"(?:", kMonth, "[/-]", kDay, "|", kDay, "/", kMonth, ")"});
  const std::string end = Join({"(?![0-9/]|[.-][0-9])", kNoUnit});
  return {
      Join({"(?i)(?<![0-9A-Za-z/.])(?:0[1-9]/(?:0[1-9]|[12][0-9]|3[01])|(?:1[0-2])/"
            "0[1-9]|[0-3][0-9]/"
            "0[1-9])",
            end}),
      Join({"(?i)", kDateContext, "(?:the )?(?<id>", either, ")", end}),
      // in 9/93: month and year
      Join({"(?i)\\b(?:in|since|from|through|until|of|late|early|mid)[ -](?<id>", kMonth,
            "/(?<y>3[2-9]|[4-9][0-9]))(?=\\s?[.,;:)]|\\s(?:s?he|the|and|at|for|with|to|when|who|by|"
            "through|until|after)\\b)"}),
      // 6/3-6/7/2019, and a line that starts with 12/25:
      Join({"(?<![0-9/.-])(?<id>", kMonth, "/", kDay, ")(?=\\s?(?:-|to|through)\\s?", kMonth, "/",
            kDay, "/(?:[0-9]{4}|[0-9]{2})(?![0-9/]))"}),
      Join({"(?m)^ {0,4}(?:[*-] ?)?(?<id>", kMonth, "/", kDay, ")(?= ?[:-] )"}),
      // 2019年3月14日
      "(?<y>(?:1[89]|20)[0-9]{2}) ?年 ?[0-9]{1,2} ?月(?: ?[0-9]{1,2} ?日)?",
      // The second half of "from 3/14 to 3/16" and "on 3/14 and 3/16".
      Join({"(?i)", kDateContext, either, "\\s?(?:-|to|through|thru|until|and|or|&|,)\\s?(?<id>",
            either, ")", end}),
      Join({"(?i)\\b(?:dob|d\\.o\\.b\\.?|date of birth|birth ?date|born on)[\\s:=#-]{0,4}(?:is "
            "|was )?"
            "(?<id>[0-9]{2}[ ]?[0-9]{2}[ ]?(?<y>(?:19|20)[0-9]{2}|[0-9]{2}))(?![0-9])"}),
      "(?i)\\b(?:born(?: in| about| around| circa)?|birth year|year of birth|yob|dob|date of "
      "birth)[\\s:=-]{1,3}"
      "(?:is |was )?(?<id>(?<y>1[89][0-3][0-9]))(?<!193[7-9])(?![0-9/-])",
  };
}

std::vector<std::string> NamedMonthDates() {
  return {
      // March 3rd, 2021; Mar. 3 2021; Mar-03-2021; March 3, '21
      Join({"(?i)", kWeekday, "\\b", kMonthName, "[\\s-]{0,2}", kDay, kOrdinal,
            "?(?:\\s?(?:-|to|and|through|&)\\s?", kDay, kOrdinal,
            "?)?(?:\\s?,\\s{0,2}|\\s{1,2}(?:of )?|-)", kYear, "(?![0-9])", kClock}),
      Join({"(?i)", kWeekday, "\\b", kMonthName, "[\\s-]{0,2}", kDay, kOrdinal,
            "?(?:\\s?,\\s{0,2}|\\s{1,2}|-)'?", kShortYear, "(?![0-9]|[:.%/-][0-9])", kNoUnit}),
      // 3 March 2021, 3rd of March, 2021, 14-Mar-2019, 14Mar2019, 14-MAR-19
      Join({"(?i)", kWeekday, "(?<![0-9.])", kDay, kOrdinal, "?[\\s-]{0,2}(?:day )?(?:of )?",
            kMonthName, "[\\s,'/-]{0,3}", kYear, "(?![0-9])", kClock}),
      Join({"(?i)(?<![0-9.])", kDay, "[\\s-]{0,1}",
            "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[-' ]{0,2}", kShortYear,
            "(?![0-9]|[:.%/-][0-9])", kNoUnit}),
      "(?i)(?<![0-9.])(?:3[01]|[12][0-9]|0?[1-9])[-/"
      "]?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[-/]?"
      "(?<y>(?:19|20)?[0-9]{2})(?![0-9])",
      // March 3rd; Mar 3–5
      Join({"(?i)", kWeekday, "\\b", kSureMonthName, "\\s{1,2}(?:the )?", kDay, kOrdinal,
            "?(?:\\s?(?:-|to|and|through)\\s?", kDay, kOrdinal, "?)?(?![0-9]|[.:%][0-9])"}),
      Join({"(?i)", kWeekday, "\\bmay\\s{1,2}(?:the )?", kDay, "\\s?(?:st|nd|rd|th)\\b"}),
      // 3 March, the 3rd of March
      Join(
          {"(?i)", kWeekday, "(?<![0-9.])", kDay, "(?:", kOrdinal, "?\\s{1,2}|-)", kSureMonthName}),
      Join({"(?i)", kWeekday, "(?<![0-9.])", kDay, kOrdinal, "\\s{1,2}(?:day )?(?:of )?",
            kMonthName}),
      "(?i)\\b(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|"
      "thirteenth|"
      "(?:four|fif|six|seven|eigh|nine)teenth|twentieth|twenty[- "
      "](?:first|second|third|fourth|fifth|sixth|seventh|"
      "eighth|ninth)|thirtieth|thirty[- ]first) (?:day )?of "
      "(?:january|february|march|april|may|june|july|august|"
      "september|october|november|december)\\b",
      // March 2019, Mar-19, March of '19
      Join({"(?i)\\b", kMonthName, "(?:\\s?,\\s?|\\s{1,2}(?:of )?|-|/)'?", kYear, "(?![0-9])"}),
      "(?i)\\b(?:jan|feb|mar|apr|may|jun|jul|aug|sept?|nov|dec)(?:-|/| ?')(?<y>[0-9]{2})(?![0-9])",
      Join({"(?i)\\b", kMonthName, " ?'", kShortYear, "(?![0-9])"}),
      // A month of its own: an element of a date
      "(?i)\\b(?:january|february|april|june|july|august|september|october|november|december)\\b",
      "\\b(?:[Ii]n|[Ss]ince|[Ll]ast|[Tt]his|[Nn]ext|[Ee]arly|[Ll]ate|[Mm]id|[Uu]ntil|[Bb]y|[Dd]"
      "uring|[Ff]rom|[Tt]o|"
      "[Oo]f|[Bb]etween|[Aa]nd|[Tt]hrough|[Bb]efore|[Aa]fter)[ -](?<id>March|May|MARCH|MAY)\\b",
      // Days with a name
      "(?i)\\b(?:christmas(?: day| eve)?|thanksgiving(?: day)?|new year'?s(?: day| eve)?|labor "
      "day|memorial day|"
      "independence day|halloween|valentine'?s day|easter sunday|good friday|veterans "
      "day|mother'?s day|"
      "father'?s day)\\b(?! (?:disease|factor|tree))",
  };
}

std::vector<std::string> Ages() {
  const std::string_view age = "(?<id>(?:9[0-9]|1[0-3][0-9])(?:\\.[0-9])?)";
  const std::string_view units = "one|two|three|four|five|six|seven|eight|nine";
  return {
      // 92-year-old, 92 years of age, 92 y/o, 92yo
      Join({"(?i)(?<![0-9./])", age,
            "(?=[\\s-]{0,2}(?:years?|yrs?\\.?|y\\.?)[\\s-]{0,2}(?:olds?\\b|o\\b|of age)|"
            "[\\s-]?(?:y/o|yo\\b|y\\.o\\.|yr/o|yrs/o))"}),
      // 91 y F, 92 years young
      Join({"(?i)(?<![0-9./])", age,
            "(?=[\\s-]{0,2}(?:y|yrs?|years?)\\.?[\\s-]{1,2}(?:m|f|male|female|man|woman|lady|"
            "gentleman|"
            "young|caucasian|white|black|african|hispanic|asian)\\b)"}),
      // aged 93, age: 101, Age/Sex: 92/F, ages 60 to 95
      Join({"(?i)(?<!\\[)\\bage[ds]?(?:\\s?/\\s?sex)?(?: at [a-z]{1,12})?(?: ?\\((?:in "
            ")?(?:years|yrs|y)\\))?"
            "(?:[\\s:=,-]|of |is |was |at |about |approximately ){1,4}",
            age, "(?![0-9+]|[.,][0-9]|\\s?(?:%|kg|lbs?\\b|mmhg))"}),
      Join({"(?i)(?<!\\[)\\bage[ds]?(?:[\\s:=-]|of |between |from "
            "){1,3}[0-9]{1,3}\\s?(?:-|to|and|through)\\s?",
            age, "(?![0-9]|[.,][0-9])"}),
      // She is 92 years; the patient is 95 and …; turned 90
      Join({"(?i)\\b(?:is|was|at|turned|turning|now|almost|nearly)\\s{1,2}", age,
            "(?=\\s{1,2}(?:years?|yrs?)\\b(?! ago))"}),
      Join({"(?i)\\b(?:turn(?:ed|ing|s)?)\\s{1,2}", age,
            "(?![0-9]|[.,%/][0-9]|\\s?(?:mg|mm|%|degrees))"}),
      Join({"(?i)\\b(?:s?he|patient|pt|mother|father|grandmother|grandfather|husband|wife|i)(?: "
            "is| was|'s|'m| am)"
            "(?: now| currently| already| about)?\\s{1,2}",
            age, "(?=\\s?[.;!?](?:\\s|$)|\\s?,\\s(?!(?:[0-9]))|\\s{1,2}(?:and|who|with|but)\\b)"}),
      // 92F with chest pain, a 92 male
      Join({"(?<![0-9./])", age,
            "(?=\\s?[MF]\\b[ ,]{1,2}(?:with|who|presents|presenting|w/|h/o|hx|admitted|c/o|s/p|"
            "here|pt|patient|history|found|brought))"}),
      Join({"(?i)\\b(?:an?|this|pleasant|elderly|old)\\s{1,2}", age,
            "(?=\\s{1,2}(?:male|female|man|woman|lady|gentleman|m/|f/)\\b)"}),
      // in her early 90s, 95th birthday
      Join({"(?i)\\b(?:her|his|their|my)\\s(?:(?:early|mid|late)[- ])?(?<id>(?:9|1[0-3])0'?s)\\b"}),
      Join({"(?i)\\b(?:her|his|their|my)\\s(?:early |mid |late "
            "|early-|mid-|late-)?(?<id>nineties)\\b"}),
      Join({"(?i)(?<![0-9])(?<id>(?:9[0-9]|1[0-3][0-9])(?:st|nd|rd|th))(?= birthday)"}),
      // ninety-two years old, a hundred and one years of age
      Join({"(?i)\\b(?<id>ninety(?:[\\s-](?:", units,
            "))?|(?:one |a )?hundred(?:[\\s-](?:and[\\s-])?(?:", units,
            "|ten|eleven|twelve))?)(?=[\\s-]{1,2}(?:years?|yrs?)[\\s-]{1,2}(?:olds?|of age)\\b)"}),
      Join({"(?i)\\bage[d]?(?: of)?\\s(?<id>ninety(?:[\\s-](?:", units,
            "))?|(?:one |a )hundred)\\b"}),
      "(?i)\\b(?:super)?centenarians?\\b|\\bnonagenarians?\\b",
  };
}

// clang-format on

}  // namespace

std::vector<RuleSpec> DateRules() {
  std::vector<std::string> dates = NumericDates();
  for (auto* more : {DayMonthDates, NamedMonthDates}) {
    for (std::string& pattern : more()) dates.push_back(std::move(pattern));
  }
  return {{"date", 1, DateSurrogate, std::move(dates)}, {"age", 1, AgeSurrogate, Ages()}};
}

}  // namespace osler
