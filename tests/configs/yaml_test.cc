// Every way in which a file can fail to be a configuration, and the message it earns.
#include <gtest/gtest.h>

#include <ostream>

#include "configs/config.h"
#include "tests/configs/examples.h"
#include "tests/testing/matchers.h"

namespace osler {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::Fails;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::kTrainMinimum;
using ::testing::Not;
using ::testing::StartsWith;

absl::StatusOr<config::Train> Parse(const std::string& text) {
  return ParseTrainConfig(text, "train.yaml", {});
}
// The minimum with `line` as its line 7.
absl::StatusOr<config::Train> ParseWith(const std::string& line) {
  return Parse(kTrainMinimum + line);
}

struct BadCase {
  const char* line;    // added as line 7
  const char* start;   // of the message
  const char* advice;  // somewhere in it
};

void PrintTo(const BadCase& one, std::ostream* out) { *out << one.line; }

class BadLineTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadLineTest, IsRefusedWithPlaceAndAdvice) {
  EXPECT_THAT(
      ParseWith(GetParam().line),
      Fails(ExitCode::kConfig, AllOf(StartsWith(GetParam().start), HasSubstr(GetParam().advice))));
}

INSTANTIATE_TEST_SUITE_P(
    UnknownKeys, BadLineTest,
    ::testing::Values(
        BadCase{"optimizer: {lrr: 1}\n", "train.yaml:7: unknown key 'optimizer.lrr'",
                "did you mean 'lr'?"},
        BadCase{"\n\noptimizer:\n  eps: 1e-8\n  beta: [0, 0]\n",
                "train.yaml:11: unknown key 'optimizer.beta'", "did you mean 'betas'?"},
        BadCase{"optimiser: {lr: 1}\n", "train.yaml:7: unknown key 'optimiser'",
                "did you mean 'optimizer'?"},
        BadCase{"schedule: {Warmup-Steps: 1}\n",
                "train.yaml:7: unknown key 'schedule.Warmup-Steps'",
                "did you mean 'warmup_steps'?"},
        BadCase{"learning: 1\n", "train.yaml:7: unknown key 'learning'",
                "valid keys here: model, data, mesh, train, optimizer, schedule, checkpoint"},
        BadCase{"mesh: {weight_decay: 1}\n", "train.yaml:7: unknown key 'mesh.weight_decay'",
                "did you mean 'optimizer.weight_decay'?"},
        BadCase{"'': 1\n", "train.yaml:7: unknown key ''", "valid keys"}));

INSTANTIATE_TEST_SUITE_P(
    Structure, BadLineTest,
    ::testing::Values(
        BadCase{"optimizer: {lr: 1, lr: 2}\n", "train.yaml:7: key 'optimizer.lr'", "second time"},
        BadCase{"model: {path: x}\n", "train.yaml:7: key 'model'", "second time"},
        BadCase{"mesh: [1, 2]\n", "train.yaml:7: mesh: expected a map", "found a list"},
        BadCase{"mesh: 4\n", "train.yaml:7: mesh: expected a map", "found '4'"},
        BadCase{"schedule:\n", "train.yaml:7: schedule: expected a map", "delete the key"},
        BadCase{"optimizer: {lr: }\n", "train.yaml:7: optimizer.lr: expected a single value",
                "found nothing; give it a value"},
        BadCase{"optimizer:\n  lr:\n\n  eps: 1\n", "train.yaml:8: optimizer.lr:", "found nothing"},
        BadCase{"optimizer:\n  betas:\n", "train.yaml:8: optimizer.betas: expected a list",
                "found nothing"},
        BadCase{"optimizer: {lr: ~}\n", "train.yaml:7: optimizer.lr:", "found nothing"},
        BadCase{"optimizer: {lr: [1]}\n", "train.yaml:7: optimizer.lr:", "found a list"},
        BadCase{"optimizer: {lr: {a: 1}}\n", "train.yaml:7: optimizer.lr:", "found a map"},
        BadCase{"optimizer: {betas: 0.9}\n",
                "train.yaml:7: optimizer.betas: expected a list such as [0.9, 0.999]",
                "found '0.9'"},
        BadCase{"optimizer: {betas: [0.9, x]}\n",
                "train.yaml:7: optimizer.betas.1: expected a number", "'x'"},
        BadCase{"optimizer: {[lr]: 1}\n", "train.yaml:7: a key is a plain word", ""},
        BadCase{"optimizer: {<<: {lr: 1}}\n", "train.yaml:7: merge keys", "write the settings out"},
        BadCase{"optimizer: {lr: !!float 1}\n", "train.yaml:7: optimizer.lr: YAML tags",
                "plain value"},
        BadCase{"---\nmodel: {path: b}\n",
                "train.yaml:", "more text follows the end of the YAML document"},
        BadCase{"optimizer: {lr: 1\nmesh: 2}\n", "train.yaml:", ""},
        BadCase{"optimizer: {lr: 1\n", "train.yaml:", "not valid YAML"},
        BadCase{"}\n", "train.yaml:7: ", ""},
        BadCase{"\toptimizer: 1\n", "train.yaml:7: not valid YAML", ""},
        BadCase{"optimizer: {lr: *nobody}\n", "train.yaml:7: not valid YAML", ""},
        BadCase{"optimizer: \"\x04\"\n", "train.yaml:7: holds the control character 0x04",
                "UTF-8"}));

INSTANTIATE_TEST_SUITE_P(
    Numbers, BadLineTest,
    ::testing::Values(
        BadCase{"optimizer: {lr: fast}\n",
                "train.yaml:7: optimizer.lr: expected a number such as 1.0e-3", "found 'fast'"},
        BadCase{"optimizer: {lr: \"1e-3\"}\n", "train.yaml:7: optimizer.lr:", "remove the quotes"},
        BadCase{"optimizer: {lr: .nan}\n", "train.yaml:7: optimizer.lr: expected a number", ".nan"},
        BadCase{"optimizer: {lr: inf}\n", "train.yaml:7: optimizer.lr: expected a number", "inf"},
        BadCase{"optimizer: {lr: 1e400}\n",
                "train.yaml:7: optimizer.lr:", "fits 64-bit floating point"},
        BadCase{"optimizer: {lr: 1e-400}\n",
                "train.yaml:7: optimizer.lr:", "fits 64-bit floating point"},
        BadCase{"optimizer: {lr: 1_0.0}\n", "train.yaml:7: optimizer.lr: expected a number", ""},
        BadCase{"optimizer: {lr: 1e}\n", "train.yaml:7: optimizer.lr: expected a number", ""},
        BadCase{"optimizer: {lr: '.'}\n", "train.yaml:7: optimizer.lr: expected a number", ""},
        BadCase{"checkpoint: {keep: 8.0}\n",
                "train.yaml:7: checkpoint.keep: expected a whole number such as 8",
                "without a point or an exponent"},
        BadCase{"checkpoint: {keep: 1e3}\n",
                "train.yaml:7: checkpoint.keep: expected a whole number",
                "without a point or an exponent"},
        BadCase{"checkpoint: {keep: 010}\n",
                "train.yaml:7: checkpoint.keep:", "remove the leading zero"},
        BadCase{"checkpoint: {keep: 0x10}\n",
                "train.yaml:7: checkpoint.keep: expected a whole number", "'0x10'"},
        BadCase{"checkpoint: {keep: 3 0}\n",
                "train.yaml:7: checkpoint.keep: expected a whole number", "'3 0'"},
        BadCase{"checkpoint: {keep: 9223372036854775808}\n", "train.yaml:7: checkpoint.keep:",
                "from -9223372036854775808 to 9223372036854775807"},
        BadCase{"mesh: {data: 2147483648}\n",
                "train.yaml:7: mesh.data:", "from -2147483648 to 2147483647"}));

INSTANTIATE_TEST_SUITE_P(
    Words, BadLineTest,
    ::testing::Values(
        BadCase{"schedule: {type: cosin}\n",
                "train.yaml:7: schedule.type: expected one of constant, linear, cosine",
                "found 'cosin'"},
        BadCase{"schedule: {type: COSINE}\n", "train.yaml:7: schedule.type: expected one of",
                "'COSINE'"},
        BadCase{"optimizer: {type: sgd}\n", "train.yaml:7: optimizer.type: expected adamw",
                "found 'sgd'"}));

TEST(YamlTest, BooleansAreTrueOrFalseOnly) {
  const auto packing = [](const std::string& value) {
    return Parse(
        "model: {path: m}\ntrain: {steps: 1, output: r}\ndata:\n  train: [{path: d}]\n  packing: " +
        value + "\n");
  };
  ASSERT_OK_AND_ASSIGN(const config::Train yes, packing("true"));
  EXPECT_TRUE(yes.data().packing());
  ASSERT_OK_AND_ASSIGN(const config::Train no, packing("false"));
  EXPECT_FALSE(no.data().packing());
  for (const char* value : {"yes", "on", "True", "1"}) {
    EXPECT_THAT(packing(value),
                Fails(ExitCode::kConfig,
                      AllOf(StartsWith("train.yaml:5: data.packing: "), HasSubstr("write true"))));
  }
  EXPECT_THAT(packing("no"), Fails(ExitCode::kConfig, HasSubstr("write false")));
  EXPECT_THAT(packing("'true'"), Fails(ExitCode::kConfig, HasSubstr("remove the quotes")));
  EXPECT_THAT(packing("maybe"), Fails(ExitCode::kConfig, Not(HasSubstr("write"))));
}

TEST(YamlTest, EverySpellingOfAFloatIsTheSameNumber) {
  for (const char* spelling :
       {"2e-4", "2.0e-4", "2E-4", "0.0002", ".0002", "+2.e-4", "0.2e-03", "20e-5"}) {
    ASSERT_OK_AND_ASSIGN(const config::Train c,
                         ParseWith(std::string("optimizer: {lr: ") + spelling + "}\n"));
    EXPECT_EQ(c.optimizer().lr(), 2e-4) << spelling;
  }
  ASSERT_OK_AND_ASSIGN(const config::Train tiny, ParseWith("optimizer: {lr: 1e-30}\n"));
  EXPECT_EQ(tiny.optimizer().lr(), 1e-30);
  ASSERT_OK_AND_ASSIGN(const config::Train whole, ParseWith("optimizer: {clip_norm: 1}\n"));
  EXPECT_EQ(whole.optimizer().clip_norm(), 1.0);
}

TEST(YamlTest, SeedsUseAll64Bits) {
  const auto seeded = [](const std::string& seed) {
    return Parse(
        "model: {path: m}\ndata: {train: [{path: d}]}\ntrain: {steps: 1, output: r, seed: " + seed +
        "}\n");
  };
  ASSERT_OK_AND_ASSIGN(const config::Train c, seeded("18446744073709551615"));
  EXPECT_EQ(c.train().seed(), ~uint64_t{0});
  EXPECT_THAT(seeded("-1"), Fails(ExitCode::kConfig, HasSubstr("from 0 to 18446744073709551615")));
}

TEST(YamlTest, AnchorsQuotesCommentsAndWindowsLineEndsWork) {
  ASSERT_OK_AND_ASSIGN(const config::Train c,
                       Parse("\xEF\xBB\xBF# note\r\nmodel: {path: \"a b: c\"}\r\n"
                             "data:\r\n  train:\r\n  - &one {path: 'd # e', weight: 2}\r\n"
                             "  - *one\r\ntrain: {steps: 1, output: 2024}\r\n"));
  EXPECT_EQ(c.model().path(), "a b: c");
  ASSERT_EQ(c.data().train_size(), 2);
  EXPECT_EQ(c.data().train(1).path(), "d # e");
  EXPECT_EQ(c.data().train(1).weight(), 2);
  EXPECT_EQ(c.train().output(), "2024");
}

TEST(YamlTest, FilesWithoutSettingsSayWhereToLook) {
  for (const char* text : {"", "\n\n", "# only a comment\n", "---\n", "~\n"}) {
    EXPECT_THAT(Parse(text),
                Fails(ExitCode::kConfig, AllOf(StartsWith("train.yaml: the file holds no settings"),
                                               HasSubstr("docs/config.md"))));
  }
  EXPECT_THAT(Parse("- model\n"),
              Fails(ExitCode::kConfig, StartsWith("train.yaml:1: expected a map")));
  EXPECT_THAT(Parse("just text\n"),
              Fails(ExitCode::kConfig, StartsWith("train.yaml:1: expected a map")));
}

// yaml-cpp's LoadAll never returns for the first of these; its parser recurses on the last.
TEST(YamlTest, HostileTextsAreRefusedQuickly) {
  EXPECT_THAT(Parse(", a: 1\n"), Not(IsOk()));
  EXPECT_THAT(Parse("!2\n"), Not(IsOk()));
  EXPECT_THAT(Parse("&a [*a]\n"), Not(IsOk()));
  EXPECT_THAT(Parse("model: &a {path: *a}\n"), Not(IsOk()));
  EXPECT_THAT(Parse(std::string(100000, '[')),
              Fails(ExitCode::kConfig, HasSubstr("not valid YAML")));
  EXPECT_THAT(Parse(std::string(2 << 20, ' ')),
              Fails(ExitCode::kConfig, HasSubstr("no configuration")));
}

TEST(YamlTest, LongValuesAreCutOnCharacterBoundaries) {
  std::string value;
  for (int i = 0; i < 50; ++i) value += "é";
  std::string shown;
  for (int i = 0; i < 30; ++i) shown += "é";
  EXPECT_THAT(ParseWith("optimizer: {lr: x" + value + "}\n"),
              Fails(ExitCode::kConfig, HasSubstr("'x" + shown.substr(2) + "…'")));
}

}  // namespace
}  // namespace osler
