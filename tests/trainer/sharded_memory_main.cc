// How much memory a rank needs under ZeRO 3, as processes see it: run under mpirun by
// trainer/sharded_memory_slow. Writes a model of a little over 2 GB to a directory, loads it over
// the shard axis, and runs a forward and a backward pass and an optimizer step, while a thread
// watches the peak of RssAnon (memory that is not a view of a file). Fails when a peak is above
//
//   baseline + this rank's pieces + 2 blocks + 10 %
//
// where pieces are those of the parameters (loading, forward), and of gradients (backward) and of
// optimizer state (step), and a block counts with its gradients in the backward pass.
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/fs.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "checkpoint/dtype.h"
#include "checkpoint/safetensors.h"
#include "model/registry.h"
#include "parallel/launch.h"
#include "parallel/world.h"
#include "trainer/freed_memory.h"
#include "trainer/gradient_reduce.h"
#include "trainer/optim/adamw.h"
#include "trainer/residency.h"
#include "trainer/walk.h"
#include "trainer/weights.h"

namespace osler {
namespace {

constexpr int kLayers = 16;
constexpr char kConfig[] = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
  "vocab_size": 2048, "hidden_size": 2048, "intermediate_size": 2560, "num_hidden_layers": 16,
  "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 128, "rms_norm_eps": 1e-5,
  "max_position_embeddings": 256, "tie_word_embeddings": false})";

int64_t RssAnon(Fs& fs) {
  const auto text = fs.ReadFile("/proc/self/status");
  if (!text.ok()) return 0;
  const size_t at = text->find("RssAnon:");
  return at == std::string::npos ? 0 : std::stoll(text->substr(at + 8)) << 10;
}

// The highest RssAnon since Begin.
class Watch {
 public:
  explicit Watch(Fs& fs) : fs_(fs), thread_([this] { Look(); }) {}
  ~Watch() {
    done_ = true;
    thread_.join();
  }
  void Begin() { peak_ = RssAnon(fs_); }
  int64_t peak() const { return peak_; }

 private:
  void Look() {
    while (!done_) {
      peak_ = std::max(peak_.load(), RssAnon(fs_));
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  Fs& fs_;
  std::atomic<bool> done_ = false;
  std::atomic<int64_t> peak_ = 0;
  std::thread thread_;
};

// Every matrix holds the same few values over and over: what they are does not matter.
absl::Status WriteModel(Fs& fs, const ModelSpec& spec, const std::string& directory) {
  ParameterStore store;
  spec.build(store);
  std::vector<TensorToWrite> tensors;
  int64_t largest = 0, total = 0;
  for (const ParameterSlot& slot : store.slots()) {
    tensors.push_back({slot.name, "F32", slot.shape, {}});
    const int64_t bytes = TensorBytes("F32", slot.shape).value_or(0);
    largest = std::max(largest, bytes);
    total += bytes;
  }
  std::vector<float> values(static_cast<size_t>(largest) / sizeof(float));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = 0.01f * static_cast<float>(static_cast<int>(i * 2654435761u >> 24 & 15) - 7);
  std::printf("%lld MB of weights\n", static_cast<long long>(total) / 1000000);
  OSLER_RETURN_IF_ERROR(fs.MakeDirectories(directory));
  return WriteSafetensors(
             fs, JoinPath(directory, "model.safetensors"), tensors, {{"format", "pt"}},
             [&](size_t i) -> absl::StatusOr<std::string_view> {
               return std::string_view(
                   reinterpret_cast<const char*>(values.data()),
                   static_cast<size_t>(TensorBytes("F32", tensors[i].shape).value_or(0)));
             },
             nullptr)
      .status();
}

class Check {
 public:
  Check(Fs& fs, int rank) : rank_(rank), watch_(fs), baseline_(RssAnon(fs)) {}
  void Begin() { watch_.Begin(); }
  void End(const char* what, int64_t pieces, int64_t blocks) {
    const int64_t used = watch_.peak() - baseline_;
    const int64_t limit = (pieces + blocks) * 11 / 10;
    std::printf(
        "rank %d %s: %lld MB above the baseline of %lld MB; pieces %lld MB + 2 blocks %lld "
        "MB + 10 %% = %lld MB%s\n",
        rank_, what, Mb(used), Mb(baseline_), Mb(pieces), Mb(blocks), Mb(limit),
        used > limit ? ": TOO MUCH" : "");
    std::fflush(stdout);
    ok_ = ok_ && used <= limit;
  }
  bool ok() const { return ok_; }

 private:
  static long long Mb(int64_t bytes) { return bytes / 1000000; }
  int rank_;
  Watch watch_;
  int64_t baseline_;
  bool ok_ = true;
};

Pack MakePack() {
  Pack pack;
  for (int32_t t = 0; t < 64; ++t) pack.tokens.push_back(t * 31 % 2048);
  pack.labels = pack.tokens;
  pack.doc_starts = {0};
  return pack;
}

struct Sizes {
  int64_t piece = 0, block = 0;  // bytes of parameters
};
Sizes SizesOf(const ParameterStore& store, const Model& model) {
  Sizes sizes;
  for (size_t i = 0; i < store.slots().size(); ++i)
    sizes.piece += store.PieceCount(static_cast<int64_t>(i)) * 4;
  for (const int64_t slot : model.blocks[1]->slots()) sizes.block += store.LocalCount(slot) * 4;
  return sizes;
}

absl::Status Measure(Fs& fs, const std::string& directory, Communicator& world, Check& check) {
  OSLER_ASSIGN_OR_RETURN(const ModelSpec spec, ParseModelSpec(kConfig, "config"));
  OSLER_ASSIGN_OR_RETURN(Mesh mesh, Mesh::Create({{1, 1, world.size(), 1, 1}}, world));
  ParameterStore store;
  const Model model = spec.build(store);
  store.LayOut(LayoutOf(mesh, spec.placements, ZeroLevel::kParameters));
  const Sizes sizes = SizesOf(store, model);

  check.Begin();
  OSLER_RETURN_IF_ERROR(LoadWeights(fs, directory, spec, at::kFloat, store));
  check.End("load", sizes.piece, 2 * sizes.block);

  Residency residency(store, mesh.comm(Axis::kShard));
  Walk walk({model, store, residency, mesh.comm(Axis::kPipeline), mesh.world().recorder(),
             WholeModel(model)},
            {.recompute = RecomputeMode::kFull});
  const Pack pack = MakePack();
  const auto make = [&](int64_t) { return MakeMicroBatch(model, {&pack, 1}); };
  check.Begin();
  walk.Evaluate(1, make);
  check.End("forward", sizes.piece, 2 * sizes.block);

  GradientReducer gradients(store, mesh, {});
  check.Begin();
  walk.Run(1, make, 1.0 / 64, gradients);
  gradients.Finish();
  check.End("forward and backward", 2 * sizes.piece, 4 * sizes.block);

  std::vector<int64_t> all;
  for (size_t i = 0; i < store.slots().size(); ++i) all.push_back(static_cast<int64_t>(i));
  check.Begin();
  AdamW optimizer(store, {}, {{1, 0, all}});
  optimizer.Step(1, 1e-3, 1);
  residency.PiecesChanged();
  check.End("optimizer step", 4 * sizes.piece, 2 * sizes.block);
  return absl::OkStatus();
}

absl::Status Main(const std::string& directory) {
  SetFreedMemory(FreedMemory::kReturned);  // as osler train does under ZeRO 3
  const auto fs = MakePosixFs();
  OSLER_ASSIGN_OR_RETURN(const LaunchInfo launch, DetectLaunch());
  OSLER_ASSIGN_OR_RETURN(const World connected, ConnectWorld(launch));
  Communicator* const world = connected.comm.get();
  OSLER_ASSIGN_OR_RETURN(const ModelSpec spec, ParseModelSpec(kConfig, "config"));
  OSLER_RETURN_IF_ERROR(AgreeOnStatus(
      *world, world->rank() == 0 ? WriteModel(*fs, spec, directory) : absl::OkStatus()));
  malloc_trim(0);
  Check check(*fs, world->rank());
  OSLER_RETURN_IF_ERROR(
      AgreeOnStatus(*world, CatchTorch([&] { return Measure(*fs, directory, *world, check); })));
  world->Barrier().Wait();
  if (world->rank() == 0) OSLER_RETURN_IF_ERROR(fs->RemoveTree(directory));
  return check.ok() ? absl::OkStatus() : MakeError(ExitCode::kBug, "a rank needed too much memory");
}

}  // namespace
}  // namespace osler

int main(int argc, char** argv) {
  const absl::Status status = argc == 2
                                  ? osler::Main(argv[1])
                                  : osler::ConfigError(absl::StrCat(
                                        "give a directory to write 2 GB to: ", argv[0], " DIR"));
  if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}
