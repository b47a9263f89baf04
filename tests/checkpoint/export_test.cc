#include "checkpoint/export.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "checkpoint/safetensors.h"
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

using Values = std::map<std::string, at::Tensor>;

class ExportTest : public ::testing::Test {
 protected:
  void Put(const std::string& path, std::string_view bytes) {
    ASSERT_THAT(fs_->MakeDirectories(ParentDirectory(path)), IsOk());
    ASSERT_OK_AND_ASSIGN(const auto file, fs_->Open(path, OpenMode::kTruncate));
    ASSERT_THAT(file->Append(bytes), IsOk());
    ASSERT_THAT(file->Close(), IsOk());
  }
  void PutTensors(const std::string& name, const std::vector<TensorToWrite>& tensors) {
    ASSERT_THAT(fs_->MakeDirectories(base_), IsOk());
    ASSERT_THAT(WriteSafetensors(*fs_, JoinPath(base_, name), tensors,
                                 {{"format", "pt"}, {"made", "by hand"}}),
                IsOk());
  }
  void PutSingle() {
    PutTensors("model.safetensors",
               {ToWrite("z", half_), ToWrite("frozen", long_), ToWrite("a", float_)});
    Put(JoinPath(base_, "config.json"), "{\"model_type\": \"gemma3_text\"}\n");
  }
  absl::StatusOr<ExportReport> Export(const Values& trained) { return Export(*fs_, trained); }
  absl::StatusOr<ExportReport> Export(Fs& fs, const Values& trained) {
    return ExportWeights(fs, base_, output_,
                         [&](const std::string& name) -> absl::StatusOr<std::optional<at::Tensor>> {
                           const auto it = trained.find(name);
                           if (it == trained.end()) return std::nullopt;
                           return it->second;
                         });
  }
  std::vector<std::string> Names(const std::string& directory) {
    auto names = fs_->List(directory);
    EXPECT_THAT(names, IsOk());
    return names.ok() ? *std::move(names) : std::vector<std::string>();
  }
  std::string Read(const std::string& path) { return fs_->ReadFile(path).value_or("(unreadable)"); }

  TempDir directory_;
  const std::string base_ = directory_.File("base"), output_ = directory_.File("deep/out");
  std::unique_ptr<Fs> fs_ = MakePosixFs();
  const at::Tensor half_ = at::arange(4, at::kBFloat16), long_ = at::arange(3, at::kLong),
                   float_ = at::full({2, 2}, 3, at::kFloat);
};

TEST_F(ExportTest, NothingTrainedGivesTheSameBytes) {
  PutSingle();
  ASSERT_OK_AND_ASSIGN(const ExportReport report, Export({}));
  EXPECT_EQ(report.tensors, 3);
  EXPECT_EQ(report.copied, 3);
  EXPECT_EQ(report.trained, 0);
  EXPECT_EQ(report.bytes, 4 * 2 + 3 * 8 + 4 * 4);
  EXPECT_THAT(Names(output_), ElementsAre("config.json", "model.safetensors", "osler_export.json"));
  EXPECT_EQ(Read(JoinPath(output_, "model.safetensors")),
            Read(JoinPath(base_, "model.safetensors")));
  EXPECT_THAT(Names(directory_.File("deep")), ElementsAre("out")) << "no temporary directory stays";
}

// The reference rounds by the definition: the nearest bf16, the even one of two equally near.
float RoundToBf16(float value) {
  const float low = [&] {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits &= 0xffff0000u;
    float cut;
    std::memcpy(&cut, &bits, 4);
    return cut;
  }();
  uint32_t bits;
  std::memcpy(&bits, &low, 4);
  const bool odd = (bits >> 16) & 1;
  bits += 0x10000u;
  float high;
  std::memcpy(&high, &bits, 4);
  const double below = std::abs(double{value} - low), above = std::abs(double{high} - value);
  if (below != above) return below < above ? low : high;
  return odd ? high : low;
}

TEST_F(ExportTest, TrainedValuesRoundToNearestEven) {
  std::vector<float> values;
  for (int i = 0; i < 4096; ++i)
    values.push_back(std::ldexp(1.0f + static_cast<float>(i) / 4096, i % 40 - 20));
  for (const float tie : {1.00390625f, 1.01171875f, -1.00390625f, 0.0f}) values.push_back(tie);
  const auto n = static_cast<int64_t>(values.size());
  PutTensors("model.safetensors", {ToWrite("w", at::zeros({n}, at::kBFloat16))});
  at::Tensor trained = at::empty({n}, at::kFloat);
  std::memcpy(trained.mutable_data_ptr(), values.data(), values.size() * 4);
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    ASSERT_OK_AND_ASSIGN(const ExportReport report, Export({{"w", trained.to(type)}}));
    EXPECT_EQ(report.trained, 1);
    ASSERT_OK_AND_ASSIGN(const auto file,
                         SafetensorsFile::Open(*fs_, JoinPath(output_, "model.safetensors")));
    ASSERT_OK_AND_ASSIGN(const at::Tensor written, file->Tensor("w"));
    ASSERT_EQ(written.scalar_type(), at::kBFloat16);
    const at::Tensor wide = written.to(at::kFloat);
    const auto* read = static_cast<const float*>(wide.const_data_ptr());
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(read[i], RoundToBf16(values[i])) << values[i];
    }
  }
}

TEST_F(ExportTest, ShardedLayoutIsMirrored) {
  PutTensors("model-00001-of-00002.safetensors", {ToWrite("z", half_), ToWrite("a", float_)});
  PutTensors("model-00002-of-00002.safetensors", {ToWrite("m", float_)});
  const std::string index =
      "{ \"metadata\": {\"total_size\": 40},\n \"weight_map\": {"
      "\"z\":\"model-00001-of-00002.safetensors\",\"a\":\"model-00001-of-00002.safetensors\","
      "\"m\":\"model-00002-of-00002.safetensors\"}}";
  Put(JoinPath(base_, "model.safetensors.index.json"), index);
  const at::Tensor trained = at::full({2, 2}, 1.5, at::kDouble);
  ASSERT_OK_AND_ASSIGN(const ExportReport report, Export({{"m", trained}}));
  EXPECT_EQ(report.trained, 1);
  EXPECT_EQ(report.copied, 2);
  EXPECT_EQ(Read(JoinPath(output_, "model.safetensors.index.json")), index);
  EXPECT_EQ(Read(JoinPath(output_, "model-00001-of-00002.safetensors")),
            Read(JoinPath(base_, "model-00001-of-00002.safetensors")));
  ASSERT_OK_AND_ASSIGN(
      const auto file,
      SafetensorsFile::Open(*fs_, JoinPath(output_, "model-00002-of-00002.safetensors")));
  EXPECT_EQ(file->metadata().at("made"), "by hand");
  ASSERT_OK_AND_ASSIGN(const at::Tensor m, file->Tensor("m"));
  EXPECT_TRUE(at::equal(m, at::full({2, 2}, 1.5, at::kFloat)));
}

TEST_F(ExportTest, SideFilesAreCopiedPicklesAreNot) {
  PutSingle();
  const std::string binary("\x0a\x00\xff sentencepiece", 17);
  Put(JoinPath(base_, "tokenizer.model"), binary);
  Put(JoinPath(base_, "chat_template.jinja"), "{{ x }}\r\n");
  Put(directory_.File("blob"), "{}");
  std::filesystem::create_symlink(directory_.File("blob"), JoinPath(base_, "tokenizer.json"));
  for (const char* name :
       {"pytorch_model.bin", "Weights.PT", "optimizer.pt", "model.gguf", "consolidated.safetensors",
        "pytorch_model.bin.index.json", "x.pth", "tf_model.h5", "other.safetensors.index.json"}) {
    Put(JoinPath(base_, name), "weights");
  }
  Put(JoinPath(base_, "state"), "\x80\x04\x95pickle");
  Put(JoinPath(base_, "scheduler"), std::string("PK\x03\x04 archive/data.pkl "));
  Put(JoinPath(base_, "runs/log.txt"), "sub");
  ASSERT_THAT(Export({}), IsOk());
  EXPECT_THAT(Names(output_),
              ElementsAre("chat_template.jinja", "config.json", "model.safetensors",
                          "osler_export.json", "tokenizer.json", "tokenizer.model"));
  EXPECT_EQ(Read(JoinPath(output_, "tokenizer.model")), binary);
  EXPECT_EQ(Read(JoinPath(output_, "chat_template.jinja")), "{{ x }}\r\n");
  EXPECT_FALSE(std::filesystem::is_symlink(JoinPath(output_, "tokenizer.json")));
}

TEST_F(ExportTest, ReplacesOnlyExportsAndEmptyDirectories) {
  PutSingle();
  ASSERT_THAT(fs_->MakeDirectories(output_), IsOk());
  EXPECT_THAT(Export({}), IsOk());
  EXPECT_THAT(Export({{"a", at::zeros({2, 2})}}), IsOk());
  EXPECT_THAT(Names(directory_.File("deep")), ElementsAre("out"));
  ASSERT_THAT(fs_->Remove(JoinPath(output_, kExportMark)), IsOk());
  const std::string before = Read(JoinPath(output_, "model.safetensors"));
  EXPECT_THAT(Export({}), Fails(ExitCode::kConfig,
                                AllOf(HasSubstr(output_), HasSubstr("not an earlier export"))));
  EXPECT_EQ(Read(JoinPath(output_, "model.safetensors")), before);
  ASSERT_THAT(fs_->RemoveTree(output_), IsOk());
  Put(output_, "a file");
  EXPECT_THAT(Export({}), Fails(ExitCode::kConfig, HasSubstr("it is a file")));
}

TEST_F(ExportTest, NeverReplacesItsBase) {
  PutSingle();
  Put(JoinPath(base_, kExportMark), "{}");  // the base is an earlier export itself
  const auto keep = [](const std::string&) -> absl::StatusOr<std::optional<at::Tensor>> {
    return std::nullopt;
  };
  std::filesystem::create_symlink(base_, directory_.File("link"));
  for (const std::string& output :
       {base_, base_ + "/", directory_.File("link"), directory_.path()}) {
    EXPECT_THAT(ExportWeights(*fs_, base_, output, keep),
                Fails(ExitCode::kConfig, HasSubstr("the base model")));
  }
  EXPECT_TRUE(fs_->Exists(JoinPath(base_, "model.safetensors")));
}

TEST_F(ExportTest, RefusesWhatDoesNotFit) {
  PutTensors("model.safetensors",
             {ToWrite("half", at::zeros({1}, at::kHalf)), ToWrite("long", long_)});
  EXPECT_THAT(
      Export({{"half", at::zeros({2})}}),
      Fails(ExitCode::kConfig, AllOf(HasSubstr("'half'"), HasSubstr("[1]"), HasSubstr("[2]"))));
  EXPECT_THAT(Export({{"long", at::zeros({3})}}),
              Fails(ExitCode::kConfig, AllOf(HasSubstr("'long'"), HasSubstr("I64"))));
  EXPECT_THAT(Export({{"half", at::full({1}, 1e6, at::kFloat)}}),
              Fails(ExitCode::kConfig, HasSubstr("too large")));
  EXPECT_FALSE(fs_->Exists(output_));
  EXPECT_TRUE(Names(directory_.File("deep")).empty());
}

TEST_F(ExportTest, ErrorsOfTheSourceKeepTheirClass) {
  PutSingle();
  const auto fail = [](const std::string&) -> absl::StatusOr<std::optional<at::Tensor>> {
    return CheckpointError("step-5 is damaged");
  };
  EXPECT_THAT(ExportWeights(*fs_, base_, output_, fail),
              Fails(ExitCode::kCheckpoint, HasSubstr("step-5")));
  EXPECT_THAT(ExportWeights(*fs_, directory_.File("no"), output_, fail),
              Fails(ExitCode::kConfig, HasSubstr("no")));
}

TEST_F(ExportTest, AnyFaultLeavesTheEarlierExport) {
  PutSingle();
  ASSERT_THAT(Export({}), IsOk());
  const std::string old = Read(JoinPath(output_, "model.safetensors"));
  for (const char* op : {"write", "sync", "rename"}) {
    for (int call = 1; call < 100; ++call) {
      ASSERT_OK_AND_ASSIGN(
          const auto faulty,
          MakeFaultFs(*fs_, std::string(op) + ":@" + std::to_string(call) + "=ENOSPC"));
      const auto report = Export(*faulty, {{"a", at::zeros({2, 2})}});
      const std::string now = Read(JoinPath(output_, "model.safetensors"));
      if (report.ok()) {
        EXPECT_NE(now, old);
        EXPECT_GT(call, 1) << op;
        break;
      }
      EXPECT_THAT(report, Fails(ExitCode::kCheckpoint, HasSubstr("cannot export to")));
      EXPECT_EQ(report.status().code(), absl::StatusCode::kResourceExhausted);
      const bool published =
          std::string(op) == "sync" && now != old;  // the very last sync, of the parent
      EXPECT_TRUE(now == old || published) << op << " " << call;
      if (published) {
        ASSERT_THAT(Export({}), IsOk());
      }
    }
    ASSERT_THAT(Export({}), IsOk());
    EXPECT_EQ(Read(JoinPath(output_, "model.safetensors")), old);
  }
}

TEST_F(ExportTest, DeathBetweenTheRenamesIsRepaired) {
  PutSingle();
  ASSERT_THAT(Export({}), IsOk());
  ASSERT_THAT(fs_->Rename(output_, output_ + ".osler-old"), IsOk());
  Put(output_ + ".osler-tmp/half", "x");
  ASSERT_THAT(Export({}), IsOk());
  EXPECT_THAT(Names(directory_.File("deep")), ElementsAre("out"));
}

}  // namespace
}  // namespace osler
