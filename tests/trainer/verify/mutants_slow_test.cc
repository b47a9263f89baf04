// Seeded errors of parallel training, each of which `osler verify` must notice: what a wrong
// collective, table, pack or merge does to a layout that is right without it (verify_slow_test.cc).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "parallel/local/run_ranks.h"
#include "tests/testing/faulty_communicator.h"
#include "tests/testing/matchers.h"
#include "trainer/verify/verify.h"

// The merge of partial attention is replaced by one that can be told to round: this program links
// the functions below in place of the library's file.
#define MergeAttention ExactMergeAttention
#include "kernels/merge_attention.cc"  // NOLINT(bugprone-suspicious-include)
#undef MergeAttention

namespace osler {

std::atomic<bool> round_merges = false;

void MergeAttention(const AttentionOutput& part, const AttentionOutput& into) {
  if (!round_merges) return ExactMergeAttention(part, into);
  const auto rounded = [](const at::Tensor& x) { return x.to(at::kBFloat16).to(x.scalar_type()); };
  into.lse_TH.copy_(rounded(into.lse_TH));
  ExactMergeAttention({.out_THD = part.out_THD, .lse_TH = rounded(part.lse_TH)}, into);
}

namespace {

using ::osler::testing::Afterwards;
using ::osler::testing::Fault;
using ::osler::testing::IsOk;
using ::testing::IsEmpty;
using ::testing::Not;

enum class Family { kGemma, kLlama, kQwen2 };

std::string ConfigOf(Family family) {
  switch (family) {
    case Family::kGemma:
      return R"({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text",
        "num_attention_heads": 8, "num_key_value_heads": 4, "sliding_window": 512})";
    case Family::kLlama:
      return R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": true})";
    case Family::kQwen2:
      return R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
        "num_attention_heads": 16, "num_key_value_heads": 4})";
  }
  return "";
}

struct Mutant {
  std::string name;
  Family family;
  std::string layout;
  // What the ranks of the layout are given instead of the problem.
  std::function<void(VerifyProblem&)> spoil = [](VerifyProblem&) {};
  // What their collectives do instead. Made anew for each run.
  std::function<Fault()> fault = nullptr;
};

Handle Honest(Communicator& inner, const std::string&, Collective collective) {
  return inner.Run(std::move(collective));
}

// Which collectives a fault is about.
struct Target {
  std::string path;
  CollectiveKind kind;
  std::string what;  // part of it

  bool Hits(const std::string& at, const Collective& collective) const {
    return at == path && collective.kind == kind && absl::StrContains(collective.what, what);
  }
};

// The collectives are left out.
std::function<Fault()> Missing(const Target& target) {
  return [target]() -> Fault {
    return [target](Communicator& inner, const std::string& path, Collective collective) {
      if (target.Hits(path, collective)) return Handle();
      return inner.Run(std::move(collective));
    };
  };
}

// `change` works on what each rank is left with.
using Change = std::function<void(Communicator& comm, const Collective& done)>;
std::function<Fault()> Changed(const Target& target, const Change& change) {
  return [target, change]() -> Fault {
    return [target, change](Communicator& inner, const std::string& path, Collective collective) {
      if (!target.Hits(path, collective)) return inner.Run(std::move(collective));
      const Collective done = collective;
      return Afterwards(inner.Run(std::move(collective)),
                        [&inner, change, done] { change(inner, done); });
    };
  };
}

// Each rank keeps what came first under a name and a shape, and has it again every time.
std::function<Fault()> Stale(const Target& target) {
  return [target] {
    struct Kept {
      std::mutex mutex;
      std::map<std::pair<int, std::string>, std::vector<at::Tensor>> first;
    };
    const auto kept = std::make_shared<Kept>();
    return Changed(target, [kept](Communicator& comm, const Collective& done) {
      std::string key = done.what;
      for (const at::Tensor& x : done.tensors) absl::StrAppend(&key, " ", x.numel());
      const std::scoped_lock lock(kept->mutex);
      std::vector<at::Tensor>& first = kept->first[{comm.rank(), key}];
      const bool is_first = first.empty();
      for (size_t i = 0; i < done.tensors.size(); ++i) {
        if (is_first) first.push_back(done.tensors[i].clone());
        done.tensors[i].copy_(first[i]);
      }
    })();
  };
}

void Zero(Communicator&, const Collective& done) {
  for (const at::Tensor& x : done.tensors) x.zero_();
}

// A window's fetch ends one token short: the earliest key that came from others is nothing.
void DropEarliestKey(Communicator& comm, const Collective& done) {
  for (int r = 0; r < comm.rank(); ++r) {
    const at::Tensor& keys = done.receive[static_cast<size_t>(r)];
    if (keys.numel() == 0) continue;
    keys.flatten().narrow(0, 0, std::min<int64_t>(keys.numel(), 8)).zero_();
    return;
  }
}

void ShiftParts(Communicator& comm, const Collective& done) {
  for (const at::Tensor& x : done.tensors) {
    const int64_t part = x.numel() / comm.size();
    if (part < 2) continue;
    const at::Tensor own = x.narrow(0, part * comm.rank(), part);
    own.copy_(own.roll(1));
  }
}

void RoundToBf16(Communicator&, const Collective& done) {
  for (const at::Tensor& x : done.tensors) x.copy_(x.to(at::kBFloat16));
}

void Double(Communicator&, const Collective& done) {
  for (const at::Tensor& x : done.tensors) x.mul_(2);
}

std::function<void(VerifyProblem&)> Scale(const std::string& parameter, double factor) {
  return [=](VerifyProblem& p) {
    p.parameters.at(parameter) = p.parameters.at(parameter).mul(factor);
  };
}

void NeighboursRows(VerifyProblem& p) {
  at::Tensor& up = p.parameters.at("model.layers.1.mlp.up_proj.weight");
  up = up.roll(up.size(0) / 2, 0);
}

void FirstKeyHeadForAll(VerifyProblem& p) {
  at::Tensor& keys = p.parameters.at("model.layers.2.self_attn.k_proj.weight");
  const int64_t head = keys.size(0) / 2;
  keys = keys.clone();
  keys.narrow(0, head, head).copy_(keys.narrow(0, 0, head));
}

void PaddingIsTaught(VerifyProblem& p) {
  for (std::vector<Pack>& packs : p.steps) {
    for (Pack& pack : packs) {
      pack.doc_starts.push_back(static_cast<int32_t>(pack.tokens.size()));
      pack.tokens.insert(pack.tokens.end(), 3, 0);
      pack.labels.insert(pack.labels.end(), 3, 0);
    }
  }
}

void OnePackTwice(VerifyProblem& p) { p.steps[0][1] = p.steps[0][0]; }

void DocumentsRunTogether(VerifyProblem& p) { p.steps[0][0].doc_starts = {0}; }

std::vector<Mutant> Mutants() {
  using enum CollectiveKind;
  using enum Family;
  const auto none = [](VerifyProblem&) {};
  return {
      {"gradients are not summed over data", kGemma, "data2", none,
       Missing({"data", kAllReduce, ""})},
      {"norm weights are not summed over tensor", kGemma, "tensor2", none,
       Missing({"tensor", kAllReduce, "norm.weight"})},
      {"shared key heads are not summed over their holders", kQwen2, "tensor4", none,
       Missing({"tensor/copies", kAllReduce, ""})},
      {"shared key heads are counted twice", kQwen2, "tensor4", none,
       Changed({"tensor/copies", kAllReduce, ""}, Double)},
      {"a bias is counted twice", kQwen2, "tensor2",
       Scale("model.layers.1.self_attn.v_proj.bias", 2)},
      {"a rank has its neighbour's slice", kLlama, "tensor2", NeighboursRows},
      {"a key head is replicated to the wrong ranks", kQwen2, "tensor4", FirstKeyHeadForAll},
      {"partial sums are not added over tensor", kLlama, "tensor2", none,
       Missing({"tensor", kReduceScatter, ""})},
      {"softmax terms travel in bf16", kGemma, "tensor2", none,
       Changed({"tensor", kAllGather, "softmax"}, RoundToBf16)},
      {"the ring's keys are stale", kLlama, "context4.ring", none,
       Stale({"context", kReceive, "context.ring.keys"})},
      {"the ring's key gradients are lost", kLlama, "context4.ring", none,
       Changed({"context", kReceive, "context.ring.key_gradients"}, Zero)},
      {"the window's halo is W - 2", kGemma, "context2.gather", none,
       Changed({"context", kAllToAll, "context.keys"}, DropEarliestKey)},
      {"gradients of fetched keys do not go home", kGemma, "context2.gather", none,
       Changed({"context", kAllToAll, "context.key_gradients"},
               [](Communicator& comm, const Collective& done) {
                 for (int r = 0; r < comm.size(); ++r) {
                   if (r != comm.rank()) done.receive[static_cast<size_t>(r)].zero_();
                 }
               })},
      {"partial attention is merged in bf16", kLlama, "context2.ring",
       [](VerifyProblem&) { round_merges = true; }},
      {"the loss is divided by a rank's own count", kGemma, "data2", none,
       Missing({"", kAllReduce, "counts"})},
      {"the pipeline drops the gradient", kLlama, "pipeline2", none,
       Changed({"pipeline", kReceive, "gradient"}, Zero)},
      {"the tied head's gradient is counted once", kGemma, "pipeline2", none,
       Missing({"pipeline/tied", kAllReduce, ""})},
      {"the norm for clipping is a rank's own", kLlama, "shard2.zero2", none,
       Missing({"shard", kAllReduce, "gradient norm"})},
      {"parameters are gathered once and kept", kLlama, "shard2.zero3", none,
       Stale({"shard", kAllGather, ""})},
      {"the parameters' last update is not gathered", kLlama, "shard2.zero1", none,
       Missing({"shard", kAllGather, ""})},
      {"parts of a reduce-scatter are off by one", kLlama, "shard2.zero2", none,
       Changed({"shard", kReduceScatter, ""}, ShiftParts)},
      {"gradients are rounded to bf16", kLlama, "shard2.zero1", none,
       Changed({"shard", kReduceScatter, ""}, RoundToBf16)},
      {"padding is counted", kGemma, "data2", PaddingIsTaught},
      {"a pack is read twice", kLlama, "data2", OnePackTwice},
      {"documents see each other", kLlama, "data2", DocumentsRunTogether},
  };
}

VerifyResult RunMutant(const Mutant& mutant) {
  VerifyProblem problem = *MakeVerifyProblem(ConfigOf(mutant.family), "config.json", 0);
  const VerifyReference reference = *ComputeVerifyReference(problem);
  const VerifyLayout layout = *ParseVerifyLayout(mutant.layout);
  mutant.spoil(problem);
  const Fault fault = mutant.fault == nullptr ? Honest : mutant.fault();
  VerifyResult result;
  const auto statuses = RunRanks(layout.ranks(), [&](Communicator& comm) -> absl::Status {
    const auto world = testing::MakeFaultyCommunicator(comm, fault);
    auto one = VerifyOnRanks(problem, reference, layout, *world);
    if (!one.ok()) return one.status();
    if (comm.rank() == 0) result = *std::move(one);
    return absl::OkStatus();
  });
  round_merges = false;
  for (const absl::Status& status : statuses) EXPECT_THAT(status, IsOk());
  return result;
}

TEST(MutantsTest, EveryOneIsCaught) {
  std::printf("%-52s %-16s %s\n", "mutant", "layout", "what differs most");
  for (const Mutant& mutant : Mutants()) {
    SCOPED_TRACE(mutant.name);
    const std::vector<std::string> failures = RunMutant(mutant).Failures();
    EXPECT_THAT(failures, Not(IsEmpty()));
    std::printf("%-52s %-16s %s (%zu)\n", mutant.name.c_str(), mutant.layout.c_str(),
                failures.empty() ? "NOT CAUGHT" : failures[0].c_str(), failures.size());
  }
}

// The wrapper itself changes nothing: without a fault the same layouts pass.
TEST(MutantsTest, NoneIsCaughtWithoutAnError) {
  std::set<std::pair<int, std::string>> seen;
  for (const Mutant& mutant : Mutants()) {
    if (!seen.emplace(static_cast<int>(mutant.family), mutant.layout).second) continue;
    const Mutant healthy{.name = "none", .family = mutant.family, .layout = mutant.layout};
    EXPECT_THAT(RunMutant(healthy).Failures(), IsEmpty()) << mutant.layout;
  }
}

}  // namespace
}  // namespace osler
