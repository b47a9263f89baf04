// Our side of test_slow_interop.py, which writes files with other people's libraries, runs one of
// these tests on them through OSLER_INTEROP_DIR and reads the result with those libraries again.
// Alone they have nothing to do.
#include <cstdlib>

#include "checkpoint/export.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/store.h"
#include "tests/testing/matchers.h"

namespace osler {
namespace {

using testing::IsOk;

class Interop : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* directory = std::getenv("OSLER_INTEROP_DIR");
    if (directory == nullptr) GTEST_SKIP() << "run by tests/checkpoint/test_slow_interop.py";
    directory_ = directory;
  }
  std::string File(const std::string& name) { return JoinPath(directory_, name); }
  // The tensors of input.safetensors that have a type here.
  std::map<std::string, at::Tensor> Input() {
    std::map<std::string, at::Tensor> tensors;
    input_ = SafetensorsFile::Open(*fs_, File("input.safetensors")).value();
    for (const auto& [name, info] : input_->tensors()) {
      if (ScalarTypeOf(info.dtype).ok()) tensors[name] = input_->Tensor(name).value();
    }
    return tensors;
  }

  std::string directory_;
  std::unique_ptr<Fs> fs_ = MakePosixFs();
  std::shared_ptr<const SafetensorsFile> input_;
};

TEST_F(Interop, Echo) {
  const auto tensors = Input();
  std::vector<TensorToWrite> writes;
  for (const auto& [name, tensor] : tensors) writes.push_back(ToWrite(name, tensor));
  for (const auto& [name, info] : input_->tensors()) {
    if (tensors.contains(name)) continue;
    EXPECT_FALSE(input_->Tensor(name).ok());
    writes.push_back({name, info.dtype, info.shape, input_->Bytes(name).value()});
  }
  ASSERT_THAT(WriteSafetensors(*fs_, File("output.safetensors"), writes, input_->metadata()),
              IsOk());
}

TEST_F(Interop, SaveCheckpoint) {
  CheckpointState state;
  for (const auto& [name, tensor] : Input()) {
    state.tensors.push_back({"weights", name, tensor});
    state.tensors.push_back({"optimizer", name + ".m", tensor});
  }
  state.texts = {{"cursor.json", "{\"epoch\": 0}"},
                 {"config.resolved.yaml", "train: {steps: 2}\n"}};
  CheckpointStore store(*fs_, File("run/checkpoints"), 3);
  ASSERT_THAT(store.Save(1, state), IsOk());
  ASSERT_THAT(store.Save(2, state), IsOk());
}

TEST_F(Interop, VerifyCheckpoint) {
  CheckpointStore store(*fs_, File("run/checkpoints"), 3);
  ASSERT_OK_AND_ASSIGN(const std::optional<int64_t> newest, store.NewestGood());
  ASSERT_EQ(newest, 7);
  ASSERT_OK_AND_ASSIGN(const CheckpointReport report, store.Verify(7));
  EXPECT_EQ(report.tensors, 2);
}

TEST_F(Interop, Export) {
  const auto trained = Input();
  const auto report =
      ExportWeights(*fs_, File("base"), File("out"),
                    [&](const std::string& name) -> absl::StatusOr<std::optional<at::Tensor>> {
                      const auto it = trained.find(name);
                      if (it == trained.end()) return std::nullopt;
                      return it->second;
                    });
  ASSERT_THAT(report, IsOk());
  EXPECT_EQ(report->trained, static_cast<int64_t>(trained.size()));
}

}  // namespace
}  // namespace osler
