#include "checkpoint/weights.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>

#include <filesystem>

#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::Fails;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::TempDir;

class WeightsTest : public ::testing::Test {
 protected:
  void Put(const std::string& name, const std::vector<std::string>& tensors) {
    const at::Tensor value = at::arange(4, at::kFloat);
    std::vector<TensorToWrite> writes;
    for (const std::string& tensor : tensors) writes.push_back(ToWrite(tensor, value));
    ASSERT_THAT(WriteSafetensors(*fs_, directory_.File(name), writes, {{"format", "pt"}}), IsOk());
  }
  void PutText(const std::string& name, const std::string& text) {
    ASSERT_THAT(WriteFileDurably(*fs_, directory_.File(name), text), IsOk());
  }
  void PutIndex(const std::string& map) {
    PutText("model.safetensors.index.json",
            R"({"metadata":{"total_size":32},"weight_map":)" + map + "}");
  }
  auto Open() { return WeightDirectory::Open(*fs_, directory_.path()); }

  TempDir directory_;
  std::unique_ptr<Fs> fs_ = MakePosixFs();
};

TEST_F(WeightsTest, SingleFile) {
  Put("model.safetensors", {"b", "a"});
  ASSERT_OK_AND_ASSIGN(const auto weights, Open());
  EXPECT_THAT(weights->names(), ElementsAre("a", "b"));
  EXPECT_EQ(weights->info("a").shape, std::vector<int64_t>{4});
  EXPECT_EQ(weights->files().size(), 1u);
  EXPECT_EQ(weights->index_file(), "");
  ASSERT_OK_AND_ASSIGN(const at::Tensor a, weights->Tensor("a"));
  EXPECT_TRUE(at::equal(a, at::arange(4, at::kFloat)));
  EXPECT_THAT(weights->Tensor("c"), Fails(ExitCode::kConfig, HasSubstr("'c'")));
}

TEST_F(WeightsTest, ShardsBehindLinksAsCachesKeepThem) {
  Put("blob", {"a"});
  Put("model-2.safetensors", {"b", "c"});
  std::filesystem::create_symlink("blob", directory_.File("model-1.safetensors"));
  PutIndex(R"({"a":"model-1.safetensors","b":"model-2.safetensors","c":"model-2.safetensors"})");
  ASSERT_OK_AND_ASSIGN(const auto weights, Open());
  EXPECT_THAT(weights->names(), ElementsAre("a", "b", "c"));
  ASSERT_EQ(weights->files().size(), 2u);
  EXPECT_THAT(weights->files()[1]->path(), HasSubstr("model-2.safetensors"));
  EXPECT_EQ(weights->index_file(), "model.safetensors.index.json");
}

TEST_F(WeightsTest, NamesTheMissingShard) {
  Put("model-1.safetensors", {"a"});
  PutIndex(R"({"a":"model-1.safetensors","b":"model-2.safetensors"})");
  EXPECT_THAT(Open(), Fails(ExitCode::kConfig, HasSubstr("model-2.safetensors")));
}

TEST_F(WeightsTest, NamesTheMissingAndTheDoubleTensor) {
  Put("model-1.safetensors", {"a"});
  Put("model-2.safetensors", {"b"});
  PutIndex(R"({"a":"model-1.safetensors","b":"model-2.safetensors","lost":"model-2.safetensors"})");
  EXPECT_THAT(Open(), Fails(ExitCode::kConfig,
                            AllOf(HasSubstr("'lost'"), HasSubstr("model-2.safetensors"))));
  Put("model-2.safetensors", {"a", "b"});
  PutIndex(R"({"a":"model-1.safetensors","b":"model-2.safetensors"})");
  EXPECT_THAT(Open(), Fails(ExitCode::kConfig, HasSubstr("'a' is in two files")));
}

TEST_F(WeightsTest, RefusesNamesThatLeaveTheDirectory) {
  for (const std::string name :
       {"../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "..", "", ".safetensors",
        "x\\\\y.safetensors", "model.bin", "a\\u0000.safetensors"}) {
    PutIndex("{\"secret\":\"" + name + "\"}");
    EXPECT_THAT(Open(),
                Fails(ExitCode::kConfig, AllOf(HasSubstr("index.json"), HasSubstr("'secret'"))))
        << name;
  }
}

TEST_F(WeightsTest, RefusesBadIndexes) {
  Put("model-1.safetensors", {"a"});
  const std::string index = "model.safetensors.index.json";
  PutIndex(R"({"a":"model-1.safetensors","a":"model-2.safetensors"})");
  EXPECT_THAT(Open(), Fails(ExitCode::kConfig, HasSubstr("'a' twice")));
  PutIndex(R"({"a":7})");
  EXPECT_THAT(Open(), Fails(ExitCode::kConfig, HasSubstr("'a'")));
  PutText(index, std::string(100000, '['));
  EXPECT_THAT(Open(), Fails(ExitCode::kConfig, HasSubstr(index)));
  for (const char* text :
       {"", "{", "[]", "7", "{}", R"({"weight_map":[]})", R"({"weight_map":{}})"}) {
    PutText(index, text);
    EXPECT_THAT(Open(), Fails(ExitCode::kConfig, HasSubstr(index))) << text;
  }
}

TEST_F(WeightsTest, DamagedFileIsAConfigErrorThatNamesIt) {
  Put("model.safetensors", {"a"});
  ASSERT_THAT(fs_->Truncate(directory_.File("model.safetensors"), 100), IsOk());
  EXPECT_THAT(Open(), Fails(ExitCode::kConfig, HasSubstr("model.safetensors")));
}

TEST_F(WeightsTest, SaysHowToConvertPickles) {
  EXPECT_THAT(Open(), Fails(ExitCode::kConfig, HasSubstr("holds no weights")));
  PutText("pytorch_model.bin", "PK");
  EXPECT_THAT(Open(),
              Fails(ExitCode::kConfig, AllOf(HasSubstr("pytorch_model.bin"), HasSubstr("convert"),
                                             HasSubstr("safetensors"))));
  EXPECT_THAT(WeightDirectory::Open(*fs_, directory_.File("nowhere")),
              Fails(ExitCode::kConfig, HasSubstr("does not exist")));
}

TEST_F(WeightsTest, DirectoryInPlaceOfAFile) {
  std::filesystem::create_directory(directory_.File("model.safetensors"));
  EXPECT_THAT(Open(), Fails(ExitCode::kConfig, HasSubstr("not a regular file")));
}

}  // namespace
}  // namespace osler
