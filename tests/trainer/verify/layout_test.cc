#include "trainer/verify/layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "base/errors.h"
#include "tests/testing/matchers.h"

namespace osler {
namespace {

using ::osler::testing::Fails;
using ::osler::testing::IsOk;
using ::testing::HasSubstr;

TEST(VerifyLayoutTest, PartsComeInAnyOrderAndTheNameInOne) {
  const auto layout = ParseVerifyLayout("zero3.tensor2.recompute.shard4.pipeline2.interleave3");
  ASSERT_THAT(layout, IsOk());
  EXPECT_EQ(layout->name, "pipeline2.shard4.tensor2.zero3.interleave3.recompute");
  EXPECT_EQ(layout->ranks(), 16);
  EXPECT_EQ(layout->shape.size(Axis::kShard), 4);
  EXPECT_EQ(layout->shape.size(Axis::kData), 1);
  EXPECT_EQ(layout->zero, 3);
  EXPECT_EQ(layout->interleave, 3);
  EXPECT_EQ(layout->recompute, RecomputeMode::kFull);
  EXPECT_EQ(ParseVerifyLayout("selective")->recompute, RecomputeMode::kSelective);
}

TEST(VerifyLayoutTest, ContextHasTwoWays) {
  EXPECT_EQ(ParseVerifyLayout("context4.ring")->context_method, ContextMethod::kRing);
  EXPECT_EQ(ParseVerifyLayout("context4")->context_method, ContextMethod::kAuto);
  EXPECT_EQ(ParseVerifyLayout("gather.context2")->name, "context2.gather");
}

TEST(VerifyLayoutTest, EveryStandardLayoutIsWrittenAsItIsNamed) {
  const auto layouts = ParseVerifyLayouts(StandardVerifyLayouts());
  ASSERT_THAT(layouts, IsOk());
  std::set<std::string> names;
  for (const VerifyLayout& layout : *layouts) {
    EXPECT_THAT(std::string(StandardVerifyLayouts()), HasSubstr(layout.name));
    EXPECT_TRUE(names.insert(layout.name).second) << layout.name;
    EXPECT_LE(layout.ranks(), 8);
  }
  EXPECT_GE(names.size(), 14u);
}

struct BadCase {
  std::string text, message;
};
class BadLayoutTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadLayoutTest, SaysWhatAndWhy) {
  EXPECT_THAT(ParseVerifyLayouts(GetParam().text),
              Fails(ExitCode::kConfig, HasSubstr(GetParam().message)))
      << GetParam().text;
}

INSTANTIATE_TEST_SUITE_P(
    All, BadLayoutTest,
    ::testing::Values(BadCase{"", "empty place"}, BadCase{"data2,,data3", "empty place"},
                      BadCase{"dta2", "\"dtaN\" is not known"}, BadCase{"tensor", "needs a number"},
                      BadCase{"tensor0", "from 1 to"}, BadCase{"tensor-2", "from 1 to"},
                      BadCase{"tensor2x", "from 1 to"},
                      BadCase{"data99999999999999999999", "from 1 to"},
                      BadCase{"data1000.tensor1000", "more than 1024 ranks"},
                      BadCase{"tensor2.tensor2", "given twice"},
                      BadCase{"data2.zero2", "zero says nothing without shard2"},
                      BadCase{"shard2.zero4", "levels 1, 2 and 3"},
                      BadCase{"data2.interleave2", "without pipeline2"},
                      BadCase{"data2.ring", "without context2"},
                      BadCase{"context2.ring.gather", "exclude each other"},
                      BadCase{"context2.ring2", "\"ringN\" is not known"},
                      BadCase{"shard2..zero2", "\"\" is not known"}));

}  // namespace
}  // namespace osler
