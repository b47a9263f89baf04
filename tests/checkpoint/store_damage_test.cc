// Damaged, hostile, foreign and unreadable checkpoints: what is refused, set aside or passed over.
#include <filesystem>

#include "base/digest.h"
#include "checkpoint/manifest.h"
#include "tests/checkpoint/store_testing.h"

namespace osler {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::Fails;
using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::Not;

// Every file of a checkpoint, every kind of damage: refused by name, quarantined, and the older one
// is used.
TEST_F(StoreTest, DamageIsNamedAndTheOlderOneUsed) {
  SaveSteps({5, 10});
  const std::vector<std::string> files = fs_->List(Store().StepDirectory(10)).value();
  ASSERT_EQ(files.size(), 5u);
  int cases = 0;
  for (const std::string& name : files) {
    SaveSteps({10});
    const std::string original = fs_->ReadFile(File(10, name)).value();
    std::vector<std::optional<std::string>> damages = {original + "x", std::nullopt};
    for (size_t at = 0; at < original.size(); at += 1 + original.size() / 4) {
      std::string flipped = original;
      flipped[at] = static_cast<char>(flipped[at] ^ 4);
      damages.push_back(flipped);
      damages.push_back(original.substr(0, at));
    }
    for (const auto& damage : damages) {
      ++cases;
      SaveSteps({10});
      if (damage.has_value()) {
        Overwrite(File(10, name), *damage);
      } else {
        ASSERT_THAT(fs_->Remove(File(10, name)), IsOk());
      }
      EXPECT_THAT(Store().Verify(10),
                  Fails(ExitCode::kCheckpoint, AllOf(HasSubstr("step-10"), HasSubstr(name))));
      CheckpointState state = Blank();
      EXPECT_THAT(Store().Load(10, state),
                  Fails(ExitCode::kCheckpoint, AllOf(HasSubstr("step-10"), HasSubstr(name))));
      const std::string warnings = WarningsOfNewestGood(Store());
      EXPECT_EQ(newest_.value(), 5);
      EXPECT_THAT(warnings,
                  AllOf(HasSubstr("step-10 is damaged: " + name), HasSubstr("using step-5")));
      EXPECT_THAT(Names(), ElementsAre("latest", "step-10.bad", "step-10.bad.txt", "step-5"));
      EXPECT_THAT(fs_->ReadFile(JoinPath(root_, "step-10.bad.txt")).value(), HasSubstr(name));
    }
  }
  EXPECT_GT(cases, 40);
}

TEST_F(StoreTest, FlippingAnyBitOfTheManifestIsSeen) {
  SaveSteps({5});
  const std::string original = fs_->ReadFile(File(5, kManifestName)).value();
  for (size_t bit = 0; bit < original.size() * 8; ++bit) {
    std::string flipped = original;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_EQ(ParseManifest(flipped).status().code(), absl::StatusCode::kDataLoss) << bit;
  }
  EXPECT_THAT(ParseManifest(original), IsOk());
}

// Manifests with a right digest around wrong content, as a hostile author would make them.
TEST_F(StoreTest, HostileManifests) {
  const auto parse = [](const std::string& body) {
    return ParseManifest(body + ",\n\"sha256\":\"" + Sha256Hex(body) + "\"}\n").status();
  };
  const std::string start = "{\"format\":1,\"step\":5,\"files\":[";
  EXPECT_THAT(parse(start + R"({"name":"a","size":1,"crc32c":"00000000"}])"), IsOk());
  for (const std::string file :
       {R"({"name":"../a","size":1,"crc32c":"00000000"})",
        R"({"name":"/a","size":1,"crc32c":"00000000"})",
        R"({"name":"manifest.json","size":1,"crc32c":"00000000"})",
        R"({"name":"","size":1,"crc32c":"00000000"})",
        R"({"name":"a","size":-1,"crc32c":"00000000"})",
        R"({"name":"a","size":1.5,"crc32c":"00000000"})",
        R"({"name":"a","size":18446744073709551615,"crc32c":"00000000"})",
        R"({"name":"a","size":1,"crc32c":"0"})", R"({"name":"a","size":1,"crc32c":"0000000g"})",
        R"({"name":"a","size":1})", R"(7)", R"({"name":7})",
        R"({"name":"a","name":"b","size":1,"crc32c":"00000000"})",
        R"({"name":"a","size":1,"crc32c":"00000000"},{"name":"a","size":1,"crc32c":"00000000"})"}) {
    EXPECT_EQ(parse(start + file + "]").code(), absl::StatusCode::kDataLoss) << file;
  }
  EXPECT_EQ(parse("{\"format\":1,\"step\":-5,\"files\":[]").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(parse("{\"format\":0,\"step\":5,\"files\":[]").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(parse("{\"format\":1,\"step\":5").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(parse("[1").code(), absl::StatusCode::kDataLoss);
}

TEST_F(StoreTest, NewerFormatIsRefusedNotQuarantined) {
  SaveSteps({5, 10});
  const std::string body = R"({"format":99,"step":10,"anything":"new")";
  Overwrite(File(10, kManifestName), body + ",\n\"sha256\":\"" + Sha256Hex(body) + "\"}\n");
  EXPECT_THAT(Store().NewestGood(),
              Fails(ExitCode::kCheckpoint, AllOf(HasSubstr("step-10"), HasSubstr("newer Osler"),
                                                 Not(HasSubstr("damaged")))));
  EXPECT_THAT(Store().Steps().value(), ElementsAre(5, 10));
}

TEST_F(StoreTest, ManifestOfAnotherStepAndWrongTensorCount) {
  SaveSteps({5, 10});
  std::filesystem::rename(Store().StepDirectory(10), Store().StepDirectory(12));
  EXPECT_THAT(Store().Verify(12),
              Fails(ExitCode::kCheckpoint, HasSubstr("manifest.json: is of step 10")));
}

TEST_F(StoreTest, LinksAreRefused) {
  SaveSteps({5, 10});
  const std::string file = File(10, "weights.safetensors"), outside = directory_.File("outside");
  std::filesystem::rename(file, outside);
  std::filesystem::create_symlink(outside, file);
  EXPECT_THAT(Store().Verify(10),
              Fails(ExitCode::kCheckpoint, HasSubstr("weights.safetensors: is a link")));
  CheckpointState state = Blank();
  EXPECT_THAT(Store().Load(10, state),
              Fails(ExitCode::kCheckpoint, HasSubstr("weights.safetensors: is a link")));
}

TEST_F(StoreTest, AllDamagedIsAnErrorNowAndLater) {
  SaveSteps({5, 10});
  Overwrite(File(5, "cursor.json"), "x");
  Overwrite(File(10, "cursor.json"), "x");
  const auto expected =
      Fails(ExitCode::kCheckpoint, AllOf(HasSubstr("no checkpoint is usable"), HasSubstr("step-5"),
                                         HasSubstr("step-10"), HasSubstr("begin again")));
  EXPECT_THAT(Store().NewestGood(), expected);
  EXPECT_THAT(Store().NewestGood(), expected)
      << "a second start must not begin from step 0 without a word";
}

TEST_F(StoreTest, QuarantineIsBounded) {
  SaveSteps({1, 2, 3, 4, 5, 6});
  for (int step = 2; step <= 6; ++step) Overwrite(File(step, "cursor.json"), "x");
  WarningsOfNewestGood(Store());
  EXPECT_EQ(newest_.value(), 1);
  EXPECT_THAT(Names(), ElementsAre("latest", "step-1", "step-4.bad", "step-4.bad.txt", "step-5.bad",
                                   "step-5.bad.txt", "step-6.bad", "step-6.bad.txt"));
}

TEST_F(StoreTest, WhatIsNoDamageEndsTheSearch) {
  SaveSteps({5, 10});
  std::vector<int64_t> tried;
  const auto find = [&](const absl::Status& status) {
    tried.clear();
    return Store().NewestGood([&](int64_t step) {
      tried.push_back(step);
      return step == 10 ? status : absl::OkStatus();
    });
  };
  for (const absl::Status& status :
       {CheckpointError("of another model"), DeviceError("rank 3 is gone"), ConfigError("no"),
        Reclassify(absl::UnimplementedError("newer"), ExitCode::kCheckpoint)}) {
    EXPECT_EQ(find(status).status(), status);
    EXPECT_THAT(tried, ElementsAre(10));
  }
  EXPECT_EQ(find(Reclassify(absl::UnknownError("EIO"), ExitCode::kCheckpoint)).value(), 5);
  EXPECT_THAT(Store().Steps().value(), ElementsAre(5, 10));
  EXPECT_EQ(find(Reclassify(absl::DataLossError("flipped"), ExitCode::kCheckpoint)).value(), 5);
  EXPECT_THAT(Store().Steps().value(), ElementsAre(5));
}

TEST_F(StoreTest, UnreadableIsPassedOverNotQuarantined) {
  SaveSteps({5, 10});
  ASSERT_OK_AND_ASSIGN(const auto faulty, MakeFaultFs(*fs_, "read:step-10/weights=EIO"));
  const std::string warnings = WarningsOfNewestGood(CheckpointStore(*faulty, root_, 3));
  EXPECT_EQ(newest_.value(), 5);
  EXPECT_THAT(warnings, AllOf(HasSubstr("step-10 cannot be used"), HasSubstr("using step-5")));
  EXPECT_THAT(Store().Steps().value(), ElementsAre(5, 10));
}

}  // namespace
}  // namespace osler
