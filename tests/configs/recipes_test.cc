// The recipes and the documentation load, and docs/config.md names every key of the schemas.
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "configs/config.h"
#include "tests/testing/matchers.h"
#include "tests/testing/source_dir.h"

namespace osler {
namespace {

using google::protobuf::Descriptor;
using ::testing::HasSubstr;

std::string ReadFile(const std::string& name) {
  return *MakePosixFs()->ReadFile(JoinPath(testing::SourceDir(), name));
}

TEST(RecipesTest, Load) {
  const std::unique_ptr<Fs> fs = MakePosixFs();
  const std::string folder = JoinPath(testing::SourceDir(), "configs/recipes");
  ASSERT_OK_AND_ASSIGN(const auto names, fs->List(folder));
  int found = 0;
  for (const std::string& name : names) {
    const std::string path = JoinPath(folder, name);
    if (name.rfind("train", 0) == 0) {
      EXPECT_THAT(LoadTrainConfig(*fs, path, {}), testing::IsOk());
      ++found;
    } else if (name.rfind("build", 0) == 0) {
      EXPECT_THAT(LoadBuildConfig(*fs, path, {}), testing::IsOk());
      ++found;
    }
  }
  EXPECT_EQ(found, static_cast<int>(names.size()));
  EXPECT_GE(found, 2);
}

// The YAML block that follows `heading` in docs/config.md.
std::string Example(const std::string& heading) {
  const std::string page = ReadFile("docs/config.md");
  const size_t begin = page.find("```yaml\n", page.find(heading)) + 8;
  return page.substr(begin, page.find("```", begin) - begin);
}

TEST(ConfigPageTest, ExamplesLoad) {
  EXPECT_THAT(ParseTrainConfig(Example("## train.yaml"), "train.yaml", {}), testing::IsOk());
  EXPECT_THAT(ParseBuildConfig(Example("## build.yaml"), "build.yaml", {}), testing::IsOk());
}

TEST(ConfigPageTest, PatternsLoad) {
  const std::string start = "model: {path: m}\ndata: {train: [{path: d}]}\n";
  EXPECT_THAT(ParseTrainConfig(start + Example("### Patterns"), "train.yaml",
                               {"train.steps=1", "train.output=r"}),
              testing::IsOk());
}

void ExpectDocumented(const Descriptor& message, const std::string& prefix,
                      const std::string& page) {
  for (int i = 0; i < message.field_count(); ++i) {
    const auto& field = *message.field(i);
    const std::string path = prefix + field.name();
    if (field.message_type() != nullptr) {
      ExpectDocumented(*field.message_type(), path + (field.is_repeated() ? ".N." : "."), page);
    } else {
      EXPECT_THAT(page, HasSubstr("| `" + path + "` |"));
    }
  }
}

TEST(ConfigPageTest, NamesEveryKey) {
  const std::string page = ReadFile("docs/config.md");
  ExpectDocumented(*config::Train::descriptor(), "", page);
  ExpectDocumented(*config::Build::descriptor(), "", page);
}

}  // namespace
}  // namespace osler
