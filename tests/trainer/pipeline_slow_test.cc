// Pipeline parallel over thread ranks is the one-rank computation: gradients per parameter, losses
// and evaluation in fp64, whatever the stages, chunks and micro-batches.
#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/trainer/layout_testing.h"

namespace osler {
namespace {

using testing::Compute;
using testing::Describe;
using testing::ExpectSame;
using testing::Layout;
using testing::Outcome;
using testing::TinyCase;
using testing::TinyGemma;
using testing::TinyLlama;

MeshShape Pipeline(int stages, int data = 1) { return {{stages, data, 1, 1, 1}}; }
constexpr WalkOptions kRecompute{.recompute = RecomputeMode::kFull};

void ExpectSameAsOneRank(const TinyCase& tiny, const std::vector<Layout>& layouts) {
  const Outcome one =
      Compute(tiny, {.name = "one rank", .mesh = Pipeline(1), .micro_batch = tiny.packs});
  for (const Layout& layout : layouts) {
    SCOPED_TRACE(Describe(layout));
    ExpectSame(one, Compute(tiny, layout));
  }
}

TEST(PipelineTest, StagesChunksAndUnevenLayers) {
  for (const int layers : {3, 5}) {
    for (const bool tied : {true, false}) {
      SCOPED_TRACE(absl::StrCat(layers, " layers", tied ? ", tied head" : ""));
      ExpectSameAsOneRank({.config = TinyGemma(layers, tied)},
                          {{.mesh = Pipeline(2)},
                           {.mesh = Pipeline(3), .micro_batch = 2},
                           {.mesh = Pipeline(4)},
                           {.mesh = Pipeline(2), .chunks = 2},
                           {.mesh = Pipeline(2), .chunks = 2, .micro_batch = 2, .walk = kRecompute},
                           {.mesh = Pipeline(4), .micro_batch = 3, .walk = kRecompute}});
    }
  }
}

TEST(PipelineTest, InterleavedOverThreeStages) {
  ExpectSameAsOneRank({.config = TinyLlama(6, /*tied_head=*/true)},
                      {{.mesh = Pipeline(3), .chunks = 2}, {.mesh = Pipeline(2), .chunks = 3}});
}

TEST(PipelineTest, AnyNumberOfMicroBatches) {
  for (int packs = 1; packs <= 7; ++packs) {
    SCOPED_TRACE(absl::StrCat(packs, " micro-batches"));
    ExpectSameAsOneRank({.config = TinyLlama(4, /*tied_head=*/false), .packs = packs},
                        {{.mesh = Pipeline(3)}, {.mesh = Pipeline(2), .chunks = 2}});
  }
}

// Seven packs over two readers; with five packs and six readers one of them has none.
TEST(PipelineTest, WithDataParallel) {
  ExpectSameAsOneRank({.config = TinyGemma(3, true)},
                      {{.mesh = Pipeline(2, 2)},
                       {.mesh = Pipeline(2, 2), .chunks = 2, .micro_batch = 2},
                       {.mesh = Pipeline(3, 2), .walk = kRecompute}});
  ExpectSameAsOneRank({.config = TinyLlama(3, false), .packs = 5},
                      {{.mesh = Pipeline(2, 6)}, {.mesh = Pipeline(1, 6)}});
}

TEST(PipelineTest, Frozen) {
  const std::vector<std::vector<std::string>> cases = {
      {"lm_head"},
      {"model.layers.0."},
      {"model.embed_tokens"},
      {"model.norm"},
      {"model.layers.2.mlp.up_proj"},
      {"model.layers.1.self_attn.v_proj", "lm_head"},
  };
  for (const auto& trained : cases) {
    SCOPED_TRACE(trained[0]);
    ExpectSameAsOneRank({.config = TinyGemma(4, /*tied_head=*/false), .trained = trained},
                        {{.mesh = Pipeline(2)},
                         {.mesh = Pipeline(3), .walk = kRecompute},
                         {.mesh = Pipeline(2), .chunks = 2}});
  }
}

}  // namespace
}  // namespace osler
