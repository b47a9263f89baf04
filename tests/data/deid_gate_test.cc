// The gate as the only way to a clean record: codes, trust, counts, and that it fails closed.
#include <gtest/gtest.h>

#include <ctime>
#include <string>
#include <type_traits>
#include <vector>

#include "data/deid/redactor.h"
#include "data/shard.h"
#include "tests/data/deid_text.h"
#include "tests/testing/matchers.h"

namespace osler::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// What the compiler forbids: a raw record reaches no shard, and nobody else makes or copies one
// into a clean one.
template <typename Record>
concept Appendable = requires(ShardWriter& writer, Record record) {
  writer.Append(std::move(record));
};
static_assert(Appendable<CleanRecord>);
static_assert(!Appendable<RawRecord>);
static_assert(!std::is_convertible_v<RawRecord, CleanRecord>);
static_assert(!std::is_constructible_v<CleanRecord, RawRecord>);
static_assert(!std::is_constructible_v<CleanRecord, std::string, std::string, RecordBody>);
static_assert(!std::is_default_constructible_v<CleanRecord>);
static_assert(!std::is_copy_constructible_v<RawRecord>);

std::unique_ptr<DeidGate> MakeGate() { return DeidGate::Create(config::Deid()).value(); }

TEST(Gate, CodesComeInOrderOfAppearanceAndNotFromTheValues) {
  const auto gate = MakeGate();
  std::vector<std::string> codes;
  for (const char* subject : {"zoe", "adam", "zoe", "bert"}) {
    ASSERT_OK_AND_ASSIGN(const CleanRecord clean,
                         gate->Pass(RawChat("hello", {}, "same-id", subject)));
    codes.push_back(clean.id() + " " + clean.subject());
  }
  EXPECT_EQ(codes, (std::vector<std::string>{"r-000001 s-000001", "r-000002 s-000002",
                                             "r-000003 s-000001", "r-000004 s-000003"}));
}

TEST(Gate, TrustedRecordsPassVerbatim) {
  const auto gate = MakeGate();
  RawRecord raw = RawChat("John Smith, 3/14/2019", {{"John Smith"}, {}}, "id-1", "John");
  raw.trusted = true;
  ASSERT_OK_AND_ASSIGN(const CleanRecord clean, gate->Pass(std::move(raw)));
  EXPECT_EQ(clean.id() + clean.subject() + clean.body().messages[0].content,
            "id-1JohnJohn Smith, 3/14/2019");
  EXPECT_EQ(gate->counts().at("name"), 0);
  EXPECT_EQ(gate->records(), 1);
}

TEST(Gate, TokensNeedTrust) {
  const auto gate = MakeGate();
  RawRecord raw;
  raw.id = "a";
  raw.subject = "b";
  raw.body.input_ids = raw.body.labels = {1, 2, 3};
  raw.origin = {"t.jsonl", 4};
  EXPECT_THAT(gate->Pass(std::move(raw)),
              Fails(ExitCode::kData, AllOf(HasSubstr("t.jsonl:4"), HasSubstr("trusted"))));
}

TEST(Gate, CountsByRule) {
  const auto gate = MakeGate();
  ASSERT_OK_AND_ASSIGN(
      const CleanRecord clean,
      gate->Pass(RawChat("Ann, Ann: 3/14/2019, 3/15/2019; SSN 123-45-6789", {{"Ann"}, {}})));
  EXPECT_EQ(gate->counts().at("name"), 1)
      << clean.body().messages[0].content;  // "Ann, Ann" is one stretch
  EXPECT_EQ(gate->counts().at("date"), 2);
  EXPECT_EQ(gate->counts().at("ssn"), 1);
  EXPECT_EQ(gate->counts().at("phone"), 0);
}

TEST(Gate, NotUtf8IsRefusedWithPlaceAndWithoutText) {
  const auto gate = MakeGate();
  const auto clean = gate->Pass(RawChat("secretword \xff\xfe"));
  EXPECT_THAT(clean,
              Fails(ExitCode::kData, AllOf(HasSubstr("notes.jsonl:7"), HasSubstr("message 1"),
                                           HasSubstr("offset 11"), Not(HasSubstr("secretword")))));
  EXPECT_EQ(gate->records(), 0);
}

TEST(Gate, TextsAreRedactedAsMessagesAre) {
  const auto gate = MakeGate();
  const auto raw = [](std::string text) {
    RawRecord record;
    record.id = "doc-12345";
    record.subject = "zoe";
    record.body.text = std::move(text);
    record.known.names = {"Ann Lee"};
    record.origin = {"notes.json", 7, 3};
    return record;
  };
  ASSERT_OK_AND_ASSIGN(const CleanRecord clean,
                       gate->Pass(raw("LEE, seen 3/14/2019 as doc-12345.")));
  EXPECT_EQ(clean.body().text, "[NAME-1], seen [DATE 2019] as [ID-1].");
  EXPECT_EQ(gate->counts().at("date"), 1);
  EXPECT_THAT(gate->Pass(raw("secretword \xff")),
              Fails(ExitCode::kData, AllOf(HasSubstr("notes.json:7: record 3: text: "),
                                           HasSubstr("offset 11"), Not(HasSubstr("secretword")))));
  RawRecord both = raw("a");
  both.body.messages = {{"user", "b"}};
  EXPECT_THAT(gate->Pass(std::move(both)), Fails(ExitCode::kData, HasSubstr("more than one of")));
  EXPECT_THAT(gate->Pass(raw("")), Fails(ExitCode::kData, HasSubstr("has neither")));
}

// A rule that each replacement uncovers anew, as no real rule does: the gate gives up after three
// rounds.
TEST(Gate, FailsClosed) {
  auto surrogate = [](std::string_view, std::string_view) { return std::string("[X]"); };
  ASSERT_OK_AND_ASSIGN(Redactor redactor,
                       Redactor::Create({{"peeling", 1, surrogate, {"(?:^|\\x01)(?<id>a)"}}}));
  ASSERT_OK_AND_ASSIGN(const KnownMatcher nobody, KnownMatcher::Create({}, {}));
  ASSERT_OK_AND_ASSIGN(const RedactedText clean, redactor.Redact("aaab", nobody));
  EXPECT_EQ(clean.text, "[X][X][X]b");
  EXPECT_THAT(redactor.Redact("aaaaaaab", nobody),
              Fails(ExitCode::kData,
                    AllOf(HasSubstr("peeling"), HasSubstr("offset 9"), Not(HasSubstr("aaa")))));
}

TEST(Gate, ManyAreOneByOne) {
  const std::vector<std::string> texts = {"Seen 3/14/2019", "bad \xff", "Call 617-555-0100",
                                          "Nothing", "MRN 445566"};
  const auto records = [&] {
    std::vector<RawRecord> raws;
    for (size_t i = 0; i < 40; ++i) {
      raws.push_back(RawChat(texts[i % texts.size()], {}, "r",
                             std::string(1, static_cast<char>('a' + i % 7))));
    }
    return raws;
  };
  const auto one = MakeGate(), many = MakeGate();
  const auto results = many->PassAll(records(), 4);
  std::vector<RawRecord> raws = records();
  ASSERT_EQ(results.size(), raws.size());
  for (size_t i = 0; i < raws.size(); ++i) {
    const auto expected = one->Pass(std::move(raws[i]));
    ASSERT_EQ(results[i].ok(), expected.ok());
    if (!expected.ok()) continue;
    EXPECT_EQ(results[i]->id() + results[i]->subject(), expected->id() + expected->subject());
    EXPECT_EQ(results[i]->body(), expected->body());
  }
  EXPECT_EQ(one->counts(), many->counts());
}

TEST(Gate, PolicyDigestIsOfTheRules) {
  EXPECT_EQ(MakeGate()->PolicyDigest(), MakeGate()->PolicyDigest());
  EXPECT_EQ(MakeGate()->PolicyDigest().size(), 64);
}

// Processor time: other work on the machine does not count.
double ThreadSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Text made to exhaust backtracking: the cost a byte stays that of ten times less text.
TEST(Gate, TimeIsLinearOnHostileText) {
  std::vector<std::string> seeds = {
      "a",       "1",    "1 ",  "1-",       "1/",    "(",    "A ",       "Aa ",
      "12 Aa ",  "a.",   ":",   "ab:",      "call ", "MRN ", "x@",       "a1",
      "http://", "+1 ",  "0 ",  "on 1/",    "é",     "1.1.", "Mr. A ",   "phone: 1 ",
      "[",       "name", "SSN", "age 1 to", "zip ",  "\n",   "no. no. ", "''"};
  KnownIdentifiers known;
  known.names = {"Aa Bb", "A A A", "aaaaaaaa"};
  known.others = {{"id", "11111"}, {"id", "1-1-1-1"}};
  const auto seconds = [&](const std::string& seed, size_t bytes) {
    std::string text;
    while (text.size() < bytes) text += seed;
    KnownIdentifiers copy = known;
    const double begin = ThreadSeconds();
    Clean(text, std::move(copy));
    return ThreadSeconds() - begin;
  };
  for (const std::string& seed : seeds) {
    const double small = seconds(seed, 20'000), large = seconds(seed, 200'000);
    EXPECT_LT(large, 25 * small + 0.05)
        << "\"" << seed << "\": " << small << " s, then " << large << " s";
    EXPECT_LT(large, 20) << seed;
  }
}

}  // namespace
}  // namespace osler::testing
