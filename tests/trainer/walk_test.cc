// The walk's promises beyond equal numbers: what it keeps, sends and leaves alone.
#include "trainer/walk.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "model/registry.h"
#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"
#include "tests/trainer/layout_testing.h"
#include "trainer/gradient_reduce.h"
#include "trainer/pipeline_schedule.h"

namespace osler {
namespace {

using testing::IsOk;

constexpr int64_t kWidth = 24;  // of TinyGemma

// A rank of a pipeline with its walk; parameters initialised as for a new model.
struct Stage {
  Stage(Mesh& the_mesh, int layers, int chunks, const WalkOptions& options = {})
      : mesh(the_mesh),
        spec(*ParseModelSpec(testing::TinyGemma(layers, /*tied_head=*/false), "config")),
        model(spec.build(store)),
        plan(PlanStages(BlockCosts(model, store), HeadCost(model, store),
                        {mesh.shape().size(Axis::kPipeline), chunks})) {
    StoreLayout layout;
    layout.stage = SlotsOfStage(model, plan, mesh.coordinate(Axis::kPipeline));
    store.LayOut(std::move(layout));
    InitializeParameters(store, spec, 3, at::kDouble);
    residency.emplace(store, mesh.comm(Axis::kShard));
    gradients.emplace(store, mesh, ReduceOptions{});
    walk.emplace(WalkParts{model, store, *residency, mesh.comm(Axis::kPipeline),
                           mesh.world().recorder(), plan},
                 options);
  }
  MicroBatch Make(int64_t m) const {
    const Pack pack = testing::RandomPack(m, model.vocab_size);
    return MakeMicroBatch(model, {&pack, 1});
  }

  Mesh& mesh;
  ModelSpec spec;
  ParameterStore store;
  Model model;
  StagePlan plan;
  std::optional<Residency> residency;
  std::optional<GradientReducer> gradients;
  std::optional<Walk> walk;
};

// body(mesh) on every rank of a pipeline.
void OnPipeline(int stages, const std::function<void(Mesh&)>& body) {
  const auto statuses = testing::RunRanks(stages, [&](Communicator& world) -> absl::Status {
    OSLER_ASSIGN_OR_RETURN(Mesh mesh, Mesh::Create({{stages, 1, 1, 1, 1}}, world));
    body(mesh);
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) EXPECT_THAT(status, IsOk());
}

TEST(WalkTest, APackWithoutTargetsAddsNothing) {
  OnPipeline(1, [](Mesh& mesh) {
    Stage stage(mesh, 3, 1);
    const LossSum loss = stage.walk->Run(
        1,
        [&](int64_t) {
          Pack pack = testing::RandomPack(1, stage.model.vocab_size);
          std::fill(pack.labels.begin(), pack.labels.end(), kIgnore);
          return MakeMicroBatch(stage.model, {&pack, 1});
        },
        1.0, *stage.gradients);
    stage.gradients->Finish();
    EXPECT_EQ(loss.count, 0);
    EXPECT_EQ(loss.sum, 0);
    EXPECT_EQ(stage.gradients->GlobalNorm(), 0);
  });
}

TEST(WalkTest, BytesBetweenStagesAreRowsTimesWidth) {
  for (const int chunks : {1, 2}) {
    OnPipeline(2, [&](Mesh& mesh) {
      Stage stage(mesh, 4, chunks);
      constexpr int64_t kMicroBatches = 5;
      int64_t rows = 0;
      const Traffic before = mesh.comm(Axis::kPipeline).traffic();
      stage.walk->Run(
          kMicroBatches,
          [&](int64_t m) {
            MicroBatch batch = stage.Make(m);
            rows += batch.inputs.tokens_T.size(0);
            return batch;
          },
          1.0, *stage.gradients);
      const Traffic after = mesh.comm(Axis::kPipeline).traffic();
      // Activations of all chunks but the last virtual stage, gradients of all but the first.
      const int64_t tensors = 2 * chunks - 1;
      EXPECT_EQ(after.bytes_sent - before.bytes_sent,
                tensors * rows * kWidth * static_cast<int64_t>(sizeof(double)));
      // A rank takes as many as it sends.
      EXPECT_EQ(after.collectives - before.collectives, 2 * tensors * kMicroBatches);
    });
  }
}

TEST(WalkTest, EvaluationTakesNoGradientBack) {
  OnPipeline(2, [](Mesh& mesh) {
    Stage stage(mesh, 3, 1);
    const Traffic before = mesh.comm(Axis::kPipeline).traffic();
    stage.walk->Evaluate(4, [&](int64_t m) { return stage.Make(m); });
    const Traffic after = mesh.comm(Axis::kPipeline).traffic();
    const bool first = mesh.coordinate(Axis::kPipeline) == 0;
    EXPECT_EQ(after.bytes_sent - before.bytes_sent > 0, first);
    EXPECT_EQ(after.collectives - before.collectives, 4);  // sent, or taken
    for (const ParameterSlot& slot : stage.store.slots()) {
      if (!slot.gradient.defined()) continue;
      EXPECT_EQ(slot.gradient.count_nonzero().item<int64_t>(), 0) << slot.name;
    }
  });
}

TEST(WalkTest, HiddenComesOutOfTheLastStage) {
  at::Tensor alone;
  OnPipeline(1, [&](Mesh& mesh) {
    Stage stage(mesh, 4, 1);
    alone = stage.walk->Hidden(stage.Make(0).inputs);
  });
  OnPipeline(2, [&](Mesh& mesh) {
    Stage stage(mesh, 4, /*chunks=*/2);
    const at::Tensor hidden = stage.walk->Hidden(stage.Make(0).inputs);
    ASSERT_EQ(hidden.defined(), mesh.coordinate(Axis::kPipeline) == 1);
    EXPECT_TRUE(!hidden.defined() || at::equal(hidden, alone));
  });
}

// A micro-batch, and what its blocks keep, lives from its first action to its last: as many at once
// as the schedule has in flight, and one that is expected.
TEST(WalkTest, KeepsNoMoreMicroBatchesThanAreInFlight) {
  OnPipeline(3, [](Mesh& mesh) {
    Stage stage(mesh, 3, 1);
    std::vector<c10::weak_intrusive_ptr<c10::TensorImpl>> made;
    int64_t most = 0;
    stage.walk->Run(
        12,
        [&](int64_t m) {
          MicroBatch batch = stage.Make(m);
          made.emplace_back(batch.targets_T.getIntrusivePtr());
          int64_t alive = 0;
          for (const auto& one : made) alive += one.expired() ? 0 : 1;
          most = std::max(most, alive);
          return batch;
        },
        1.0, *stage.gradients);
    EXPECT_EQ(made.size(), 12u);
    EXPECT_LE(most, MaxInFlight(stage.plan.shape, mesh.coordinate(Axis::kPipeline)) + 1);
  });
}

// The first stage has nothing to wait for when it evaluates, and still does not fill memory with
// activations that nobody has taken yet.
TEST(WalkTest, AFastStageWaitsForASlowOne) {
  std::atomic<int64_t> made = 0;
  OnPipeline(2, [&](Mesh& mesh) {
    Stage stage(mesh, 3, 1);
    const bool first = mesh.coordinate(Axis::kPipeline) == 0;
    stage.walk->Evaluate(40, [&](int64_t m) {
      if (first) {
        ++made;
      } else if (m == 0) {
        for (int64_t seen = -1; seen != made.load();) {  // until the first stage gets no further
          seen = made.load();
          std::this_thread::sleep_for(std::chrono::milliseconds(300));
        }
        EXPECT_LE(made.load(), 2 * MaxInFlight(stage.plan.shape, 0) + 3);
      }
      return stage.Make(m);
    });
  });
  EXPECT_EQ(made.load(), 40);
}

TEST(WalkTest, TheRecorderKnowsTheBlockOfATransfer) {
  OnPipeline(2, [](Mesh& mesh) {
    Stage stage(mesh, 3, 1);
    stage.walk->Run(
        2, [&](int64_t m) { return stage.Make(m); }, 1.0, *stage.gradients);
    std::vector<std::string> sent;
    for (const FlightRecorder::Entry& entry : mesh.world().recorder().Entries()) {
      if (entry.operation == "send") sent.push_back(entry.block + ": " + entry.what);
    }
    if (mesh.coordinate(Axis::kPipeline) == 0) {
      EXPECT_THAT(sent, ::testing::ElementsAre(
                            "layer.1 forward: activations of micro-batch 0 for chunk 0",
                            "layer.1 forward: activations of micro-batch 1 for chunk 0"));
    } else {
      EXPECT_THAT(
          sent, ::testing::ElementsAre("layer.2 backward: gradients of micro-batch 0 for chunk 0",
                                       "layer.2 backward: gradients of micro-batch 1 for chunk 0"));
    }
  });
}

}  // namespace
}  // namespace osler
