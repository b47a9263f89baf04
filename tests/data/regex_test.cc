#include "data/tokenizer/regex.h"

#include "tests/testing/matchers.h"

namespace osler {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::Fails;
using ::testing::HasSubstr;

absl::StatusOr<Regex> Compile(const std::string& pattern) {
  const Json json = pattern;
  return Regex::Compile({&json, "tokenizer.json: pattern"});
}

std::vector<std::string> Matches(const std::string& pattern, const std::string& text) {
  const auto regex = Compile(pattern);
  if (!regex.ok()) return {std::string(regex.status().message())};
  std::vector<TextRange> found;
  EXPECT_TRUE(regex->FindAll(text, found).ok());
  std::vector<std::string> out;
  for (const auto& [begin, end] : found) out.push_back(text.substr(begin, end - begin));
  return out;
}

// Llama 3's pattern on a line whose words can be cut by hand.
TEST(RegexTest, Llama3) {
  const std::string pattern =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  EXPECT_THAT(Matches(pattern, "It'S 12345 mg/l!\n\n  ok  "),
              ElementsAre("It", "'S", " ", "123", "45", " mg", "/l", "!\n\n", " ", " ok", "  "));
}

TEST(RegexTest, ClassesAreThoseOfOniguruma) {
  EXPECT_THAT(Matches("\\s", "a\xE1\xA0\x8E\xC2\x85"), ElementsAre("\xC2\x85"));  // not U+180E
  EXPECT_THAT(Matches("\\p{L}+", "a\xF0\x96\xB5\x80-"),
              ElementsAre("a\xF0\x96\xB5\x80"));                                    // U+16D40
  EXPECT_THAT(Matches("[^\\p{L}\\p{N}]", "a\xF0\x90\xB5\x80-"), ElementsAre("-"));  // U+10D40
  EXPECT_THAT(Matches("(?i:'s)", "'s'S'\xC5\xBF"), ElementsAre("'s", "'S", "'\xC5\xBF"));
}

TEST(RegexTest, Forms) {
  EXPECT_THAT(Matches("[a-c\\]x-]+?", "a]-d"), ElementsAre("a", "]", "-"));
  EXPECT_THAT(Matches("(ab|a)b?", "abba"), ElementsAre("abb", "a"));
  EXPECT_THAT(Matches("a++b|\\.{2,}", "aab..."), ElementsAre("aab", "..."));
  EXPECT_THAT(Matches("\xC3\xA9(?=\\S)", "\xC3\xA9 \xC3\xA9x"), ElementsAre("\xC3\xA9"));
}

TEST(RegexTest, WhatIsNotReadAlikeIsRefused) {
  for (const char* pattern :
       {"",       "a*",    "(",        ")",           "[",       "[]",
        "[a",     "[a-",   "[b-a]",    "[a&&b]",      "[[a]]",   "[-a]",
        "a**",    "a{2}?", "a{2}+",    "a{,2}",       "a{",      "^a",
        "a$",     ".",     "\\d",      "\\w",         "\\b",     "\\p{Lu}",
        "\\P{L}", "\\x41", "\\1",      "\\'",         "(?<a>b)", "(?<=a)b",
        "(?>a)",  "(?i)a", "(?i:[a])", "(?i:\\p{L})", "(?i:ss)", "(?i:\xC3\xA9)",
        "\\",     "+",     "a|*"}) {
    EXPECT_THAT(Compile(pattern), Fails(ExitCode::kConfig, HasSubstr("tokenizer.json: pattern")))
        << pattern;
  }
  std::string deep;
  for (int i = 0; i < 5000; ++i) deep += "(?:";
  EXPECT_THAT(Compile(deep), Fails(ExitCode::kConfig, HasSubstr("")));
}

TEST(RegexTest, TooManyStepsAreADataErrorThatHoldsNoText) {
  ASSERT_OK_AND_ASSIGN(const Regex regex, Compile("(?:a|aa)+c"));
  std::vector<TextRange> found;
  EXPECT_THAT(regex.FindAll(std::string(5000, 'a') + "xc", found),
              Fails(ExitCode::kData, AllOf(HasSubstr("too many steps"), HasSubstr("5002 bytes"))));
}

// Runs of a megabyte are walked once.
TEST(RegexTest, LongRuns) {
  ASSERT_OK_AND_ASSIGN(const Regex regex, Compile(R"(\p{L}+|\s*[\r\n]+|\s+(?!\S)|\s+)"));
  for (const std::string& text : {std::string(1 << 20, ' ') + "x", std::string(1 << 20, 'x'),
                                  std::string(1 << 20, '\n') + " x"}) {
    std::vector<TextRange> found;
    ASSERT_THAT(regex.FindAll(text, found), testing::IsOk());
    EXPECT_LE(found.size(), 3u);
    EXPECT_EQ(found.back().second, text.size());
  }
}

}  // namespace
}  // namespace osler
