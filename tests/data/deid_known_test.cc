// Exact removal of the names and numbers that a record states.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "data/deid/known.h"
#include "tests/data/deid_text.h"
#include "tests/testing/matchers.h"

namespace osler::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string WithNames(std::vector<std::string> names, std::string text) {
  KnownIdentifiers known;
  known.names = std::move(names);
  return Clean(std::move(text), std::move(known));
}

std::string WithIds(std::vector<std::string> ids, std::string text) {
  KnownIdentifiers known;
  for (std::string& id : ids) known.others.emplace_back("id", std::move(id));
  return Clean(std::move(text), std::move(known));
}

TEST(KnownNames, EveryWayToWriteOne) {
  for (const char* written :
       {"John Smith", "john smith", "JOHN SMITH", "Smith, John", "SMITH,JOHN", "Smith John",
        "Smith", "john", "John Q. Smith", "J. Smith", "Smith, J.", "JohnSmith", "john_smith",
        "John\nSmith", "John  Smith", "Jóhn Smith", "Smiths", "Ｊｏｈｎ Ｓｍｉｔｈ",
        "Jo\u200Bhn Smi\u00ADth"}) {
    EXPECT_EQ(WithNames({"John Smith"}, std::string("The chart of ") + written + " says so."),
              "The chart of [NAME-1] says so.");
  }
  EXPECT_EQ(WithNames({"John Smith"}, "Smith's car, Mr. Smith’s car"),
            "[NAME-1]'s car, Mr. [NAME-1]’s car");
  EXPECT_EQ(WithNames({"Smith, John"}, "John Smith"), "[NAME-1]");
  EXPECT_EQ(WithNames({"Smith"}, "Mr. John Smith and Mrs. Jane Doe"),
            "Mr. [NAME-1] and Mrs. [NAME]");
}

TEST(KnownNames, WholeWordsOnly) {
  const std::string text = "The blacksmith in Johnstown wrote to Johnson about smithy work.";
  EXPECT_EQ(WithNames({"John Smith"}, text), text);
}

TEST(KnownNames, AccentsHyphensApostrophes) {
  for (const char* written :
       {"José García-López", "Jose Garcia Lopez", "JOSE GARCIA–LOPEZ", "García-López, José",
        "José GarcíaLópez", "Jose\u0301 Garci\u0301a Lo\u0301pez"}) {
    EXPECT_EQ(WithNames({"José García-López"}, std::string("for ") + written + " now"),
              "for [NAME-1] now");
  }
  for (const char* written : {"O'Brien", "O’Brien", "OBrien", "O Brien", "o'brien", "Brien"}) {
    EXPECT_EQ(WithNames({"Mary O'Brien"}, std::string("for ") + written + " now"),
              "for [NAME-1] now");
  }
  for (const char* written : {"Jürgen Müller", "Juergen Mueller", "Jurgen Muller", "MÜLLER"}) {
    EXPECT_EQ(WithNames({"Jürgen Müller"}, std::string("for ") + written + " now"),
              "for [NAME-1] now");
    EXPECT_EQ(WithNames({"Juergen Mueller"}, std::string("for ") + written + " now"),
              "for [NAME-1] now");
  }
  EXPECT_EQ(WithNames({"Søren Kierkegård"}, "Soren KIERKEGARD"), "[NAME-1]");
}

TEST(KnownNames, OtherScripts) {
  EXPECT_EQ(WithNames({"山田太郎"}, "患者は山田太郎です"), "患者は[NAME-1]です");
  EXPECT_EQ(WithNames({"Владимир Путилин"}, "ПУТИЛИН Владимир, 60"), "[NAME-1], 60");
  EXPECT_EQ(WithNames({"Γιώργος Παπαδόπουλος"}, "ΓΙΩΡΓΟΣ Παπαδοπουλος"), "[NAME-1]");
}

TEST(KnownNames, NumbersAreConsistentInARecord) {
  DeidGate& gate = *DeidGate::Create(config::Deid()).value().release();
  RawRecord raw = RawChat("Jane came with John.", {{"John Smith", "Jane Doe"}, {}});
  raw.body.messages.push_back({"assistant", "Doe and Smith; JOHN SMITH and jane doe."});
  ASSERT_OK_AND_ASSIGN(const CleanRecord clean, gate.Pass(std::move(raw)));
  EXPECT_EQ(clean.body().messages[0].content, "[NAME-2] came with [NAME-1].");
  EXPECT_EQ(clean.body().messages[1].content, "[NAME-2] and [NAME-1]; [NAME-1] and [NAME-2].");
}

TEST(KnownNames, CommonWordsNeedACapitalAndParticlesAName) {
  EXPECT_EQ(WithNames({"Will May"}, "He will go in spring, Will can not. May went."),
            "He will go in spring, [NAME-1] can not. [NAME-1] went.");
  EXPECT_EQ(WithNames({"Will May"}, "seen by will may today"), "seen by [NAME-1] today");
  EXPECT_EQ(WithNames({"Anna van der Berg"}, "van der Waals forces; Anna van der Berg; Berg"),
            "van der Waals forces; [NAME-1]; [NAME-1]");
}

TEST(KnownNames, TrivialOnesAreSafe) {
  const std::string text = "A b c, x is 5.";
  EXPECT_EQ(WithNames({"", " ", "X", "-", "'", "Dr."}, text), text);
  EXPECT_EQ(WithIds({"", " ", "5", "-", "x"}, text), text);
}

TEST(KnownIds, WithAndWithoutSeparators) {
  for (const char* written :
       {"MRN-00445566", "mrn00445566", "MRN 0044 5566", "mrn-0044-5566", "00445566", "445566"}) {
    EXPECT_EQ(WithIds({"MRN-00445566"}, std::string("file ") + written + " here"),
              "file [ID-1] here");
  }
  EXPECT_EQ(WithIds({"445566"}, "x1445566 4455667"), "x1445566 4455667");
  EXPECT_EQ(WithIds({"12"}, "bed 12, BP 120/12, 3.12 mg"), "bed [ID-1], BP 120/12, 3.12 mg");
  EXPECT_EQ(WithIds({"A-17", "Q99/x"}, "a17 and Q99x"), "[ID-1] and [ID-2]");
}

TEST(KnownIds, TheRecordsOwnIdAndSubject) {
  DeidGate& gate = *DeidGate::Create(config::Deid()).value().release();
  ASSERT_OK_AND_ASSIGN(
      const CleanRecord clean,
      gate.Pass(RawChat("note 2019x77 of pat-0042, PAT0042", {}, "2019x77", "pat-0042")));
  EXPECT_EQ(clean.body().messages[0].content, "note [ID-1] of [ID-2], [ID-2]");
  EXPECT_THAT(clean.id(), Not(HasSubstr("2019x77")));
}

TEST(KnownIds, TooLongOrTooManyIsRefusedWithoutTheValue) {
  KnownIdentifiers known;
  known.names = {std::string(300, 'q')};
  EXPECT_THAT(KnownMatcher::Create(known, {}),
              Fails(ExitCode::kData, AllOf(HasSubstr("256"), Not(HasSubstr("qqq")))));
  known.names.assign(1001, "Anna");
  EXPECT_THAT(KnownMatcher::Create(known, {}), Fails(ExitCode::kData, HasSubstr("1000")));
}

}  // namespace
}  // namespace osler::testing
