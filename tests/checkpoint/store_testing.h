// A checkpoint's state to save and compare, and a store in a directory of its own.
#pragma once

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/store.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {

inline CheckpointState MakeState(double value) {
  CheckpointState state;
  state.tensors = {{"weights", "embed", at::full({4, 3}, value, at::kFloat)},
                   {"weights", "norm", at::full({3}, -value, at::kBFloat16)},
                   {"optimizer", "embed.m", at::full({4, 3}, value / 2, at::kFloat)},
                   {"optimizer", "step", at::full({}, value, at::kLong)}};
  state.texts = {{"cursor.json", "{\"epoch\": " + std::to_string(value) + "}\n"},
                 {"config.resolved.yaml", ""}};
  return state;
}

inline CheckpointState Blank() {
  CheckpointState state = MakeState(0);
  state.texts.clear();
  return state;
}

inline bool Same(const CheckpointState& a, const CheckpointState& b) {
  for (size_t i = 0; i < a.tensors.size(); ++i) {
    if (!at::equal(a.tensors[i].tensor, b.tensors[i].tensor)) return false;
  }
  return a.texts == b.texts;
}

class StoreTest : public ::testing::Test {
 protected:
  CheckpointStore Store(int64_t keep = 3) { return {*fs_, root_, keep}; }
  void SaveSteps(std::initializer_list<int64_t> steps, int64_t keep = 0) {
    CheckpointStore store = Store(keep);
    for (const int64_t step : steps) {
      ASSERT_THAT(store.Save(step, MakeState(static_cast<double>(step))), osler::testing::IsOk());
    }
  }
  std::string File(int64_t step, const std::string& name) {
    return JoinPath(Store().StepDirectory(step), name);
  }
  void Overwrite(const std::string& path, std::string_view text) {
    ASSERT_OK_AND_ASSIGN(const auto file, fs_->Open(path, OpenMode::kTruncate));
    ASSERT_THAT(file->Append(text), osler::testing::IsOk());
    ASSERT_THAT(file->Close(), osler::testing::IsOk());
  }
  std::vector<std::string> Names() { return fs_->List(root_).value(); }
  std::string WarningsOfNewestGood(CheckpointStore store) {
    ::testing::internal::CaptureStderr();
    newest_ = store.NewestGood();
    return ::testing::internal::GetCapturedStderr();
  }

  osler::testing::TempDir directory_;
  const std::string root_ = directory_.File("run/checkpoints");
  std::unique_ptr<Fs> fs_ = MakePosixFs();
  absl::StatusOr<std::optional<int64_t>> newest_ = std::nullopt;
};

}  // namespace osler
