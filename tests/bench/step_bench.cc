// A whole training step of one process, on the GPU where there is one: random weights, random
// tokens, and all that TrainStep does, without files.
//
//   step_bench MODEL [--sequence N] [--documents N] [--micro-batch N] [--batch N] [--steps N]
//              [--precision fp32|bf16] [--recompute selective|full] [--mlp-chunk N] [--cpu]
//              [--profile]
//
// Prints a JSON line: median step time, tokens a second, model FLOPs (three times the forward pass,
// attention by its mask's area) as a share of the device's peak, and the most memory tensors took.
// --profile then prints what one step's kernels cost, by name.
#include <ATen/Context.h>
#include <ATen/ops/normal.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/philox.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/interval_attention_cuda.h"
#include "trainer/metrics.h"
#include "trainer/plan/compute.h"
#include "trainer/step.h"

namespace osler {
namespace {

struct Shape {
  const char* family;
  int64_t hidden, layers, heads, key_heads, head_dim, intermediate, vocabulary, window;
  bool tied;
};
const std::map<std::string, Shape> kShapes = {
    {"llama-tiny", {"llama", 128, 4, 4, 2, 32, 256, 1024, 0, true}},
    {"llama-1b", {"llama", 2048, 16, 32, 8, 64, 8192, 128256, 0, true}},
    {"llama-3b", {"llama", 3072, 28, 24, 8, 128, 8192, 128256, 0, true}},
    {"llama-8b", {"llama", 4096, 32, 32, 8, 128, 14336, 128256, 0, false}},
    {"gemma3-1b", {"gemma3", 1152, 26, 4, 1, 256, 6912, 262144, 512, true}},
    {"gemma3-4b", {"gemma3", 2560, 34, 8, 4, 256, 10240, 262144, 1024, true}}};

struct Options {
  std::string model, precision = "bf16";
  int64_t sequence = 4096, documents = 1, micro_batch = 1, batch = 1, steps = 8, mlp_chunk = 0;
  bool cpu = false, profile = false;
  RecomputeMode recompute = RecomputeMode::kNone;
};

std::string ConfigOf(const Shape& s) {
  const bool gemma = std::string(s.family) == "gemma3";
  nlohmann::json config = {{"architectures", {gemma ? "Gemma3ForCausalLM" : "LlamaForCausalLM"}},
                           {"model_type", gemma ? "gemma3_text" : "llama"},
                           {"vocab_size", s.vocabulary},
                           {"num_hidden_layers", s.layers},
                           {"hidden_size", s.hidden},
                           {"intermediate_size", s.intermediate},
                           {"num_attention_heads", s.heads},
                           {"num_key_value_heads", s.key_heads},
                           {"head_dim", s.head_dim},
                           {"tie_word_embeddings", s.tied},
                           {"max_position_embeddings", 131072}};
  if (!gemma) return config.dump();
  config["query_pre_attn_scalar"] = s.head_dim;
  config["sliding_window"] = s.window;
  for (int64_t i = 1; i <= s.layers; ++i)
    config["layer_types"].push_back(i % 6 == 0 ? "full_attention" : "sliding_attention");
  return config.dump();
}

// So many documents of about equal length.
Pack RandomPack(const Options& options, int64_t vocabulary, int64_t number) {
  Pack pack;
  pack.number = number;
  for (int64_t d = 0; d < options.documents; ++d)
    pack.doc_starts.push_back(static_cast<int32_t>(d * options.sequence / options.documents));
  for (int64_t t = 0; t < options.sequence; ++t) {
    const uint64_t bits = PhiloxBits(static_cast<uint64_t>(number), static_cast<uint64_t>(t));
    pack.tokens.push_back(static_cast<int32_t>(bits % static_cast<uint64_t>(vocabulary)));
  }
  pack.labels = pack.tokens;
  return pack;
}

using Clock = std::chrono::steady_clock;

class Bench {
 public:
  explicit Bench(Options options) : options_(std::move(options)) {}

  absl::Status Run() {
    OSLER_RETURN_IF_ERROR(Prepare());
    std::vector<double> seconds;
    for (int64_t step = 1; step <= options_.steps; ++step) {
      const auto begin = Clock::now();
      OSLER_RETURN_IF_ERROR(Step(step));
      seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
      std::fprintf(stderr, "step %ld: loss %.5f, norm %.4f, %.1f ms\n", step, result_.loss,
                   result_.grad_norm, 1e3 * seconds.back());
    }
    Report(seconds);
    return options_.profile ? Profile() : absl::OkStatus();
  }

 private:
  absl::Status Prepare() {
    if (!options_.cpu) {
      OSLER_ASSIGN_OR_RETURN(device_, OpenCudaDevice(0));
    }
    OSLER_ASSIGN_OR_RETURN(plan_.spec,
                           ParseModelSpec(ConfigOf(kShapes.at(options_.model)), options_.model));
    plan_.model = plan_.spec.build(plan_.store);
    OSLER_ASSIGN_OR_RETURN(
        flops_, FlopsOf(plan_.model, plan_.store,
                        FullSequenceKeys(plan_.model, options_.sequence / options_.documents), 1));
    world_ = MakeSingleCommunicator();
    OSLER_ASSIGN_OR_RETURN(Mesh mesh, Mesh::Create({}, *world_));
    mesh_ = std::make_unique<Mesh>(std::move(mesh));
    PlaceOptions place;
    place.device = device_.device;
    OSLER_ASSIGN_OR_RETURN(stages_,
                           PlaceModel(plan_.spec, plan_.model, *mesh_, place, plan_.store));
    const at::ScalarType dtype = options_.precision == "bf16" ? at::kBFloat16 : at::kFloat;
    return CatchTorch([&] {
      for (const Model::LayerKind& kind : plan_.model.layer_kinds) {
        TestAttention({plan_.spec.heads, plan_.spec.key_value_heads, plan_.model.head_dim, dtype,
                       kind.window, device_.device});
      }
      Fill(dtype);
      StepOptions step;
      step.walk.recompute = options_.recompute;
      step.micro_batch = options_.micro_batch;
      step.mlp_chunk_tokens = options_.mlp_chunk;
      step.clip_norm = 1;
      ParameterGroup all;
      for (size_t i = 0; i < plan_.store.slots().size(); ++i)
        all.slots.push_back(static_cast<int64_t>(i));
      step_ = std::make_unique<TrainStep>(plan_.model, plan_.store, *mesh_, stages_, step,
                                          std::vector<ParameterGroup>{all});
      return absl::OkStatus();
    });
  }

  void Fill(at::ScalarType dtype) {
    at::manual_seed(1);
    for (size_t i = 0; i < plan_.store.slots().size(); ++i) {
      const auto index = static_cast<int64_t>(i);
      plan_.store.Allocate(index, dtype);
      const ModelSpec::Init init = plan_.spec.init(plan_.store.slot(index).name);
      at::Tensor value = plan_.store.slot(index).local;
      init.std == 0 ? value.fill_(init.constant) : value.normal_(0, init.std);
    }
  }

  absl::Status Step(int64_t number) {
    std::vector<Pack> packs;
    StepPlan plan{.number = number, .lr = 1e-5, .packs = options_.batch};
    for (int64_t p = 0; p < options_.batch; ++p) {
      packs.push_back(RandomPack(options_, plan_.spec.vocab_size, number * options_.batch + p));
      plan.targets += CountTargets(packs.back());
    }
    OSLER_ASSIGN_OR_RETURN(result_, step_->Run(packs, plan));
    return absl::OkStatus();
  }

  void Report(std::vector<double> seconds) {
    std::sort(seconds.begin(), seconds.end());
    const double median = seconds[seconds.size() / 2];
    const double tokens = static_cast<double>(options_.batch * options_.sequence);
    const double rate = tokens * flops_.model() / median;
    const nlohmann::ordered_json line = {
        {"model", options_.model},
        {"device", device_.device.is_cpu() ? "cpu" : device_.name},
        {"parameters", plan_.store.parameter_count()},
        {"precision", options_.precision},
        {"sequence", options_.sequence},
        {"documents", options_.documents},
        {"batch", options_.batch},
        {"micro_batch", options_.micro_batch},
        {"recompute", NameOf(options_.recompute)},
        {"step_ms", 1e3 * median},
        {"fastest_ms", 1e3 * seconds.front()},
        {"tokens_per_s", tokens / median},
        {"model_tflops", rate / 1e12},
        {"mfu", device_.bf16_flops > 0 ? rate / device_.bf16_flops : 0},
        {"device_gib", static_cast<double>(PeakDeviceBytes(device_.device)) / (1 << 30)},
        {"loss", result_.loss}};
    std::printf("%s\n", line.dump().c_str());
  }

  absl::Status Profile() {
    using torch::profiler::impl::ActivityType;
    using torch::profiler::impl::ProfilerConfig;
    using torch::profiler::impl::ProfilerState;
    const std::set<ActivityType> activities = {ActivityType::CPU, ActivityType::CUDA};
    const ProfilerConfig config(ProfilerState::KINETO);
    torch::autograd::profiler::prepareProfiler(config, activities);
    torch::autograd::profiler::enableProfiler(config, activities);
    const absl::Status status = Step(options_.steps + 1);
    const auto trace = torch::autograd::profiler::disableProfiler();
    std::map<std::string, std::pair<int64_t, double>> kernels;  // calls, microseconds
    double total = 0, first = 0, last = 0;
    for (const auto& event : trace->events()) {
      if (event.deviceType() != at::kCUDA) continue;
      auto& [calls, us] = kernels[event.name().substr(0, 110)];
      const double begin = static_cast<double>(event.startNs()) / 1e3;
      const double length = static_cast<double>(event.durationNs()) / 1e3;
      ++calls;
      us += length;
      total += length;
      first = first == 0 ? begin : std::min(first, begin);
      last = std::max(last, begin + length);
    }
    std::printf("profile %s: kernels %.1f ms of %.1f ms\n", options_.model.c_str(), total / 1e3,
                (last - first) / 1e3);
    std::vector<std::pair<double, std::string>> rows;
    for (const auto& [name, cost] : kernels) {
      rows.emplace_back(cost.second, absl::StrCat(cost.first, " × ", name));
    }
    std::sort(rows.rbegin(), rows.rend());
    for (size_t i = 0; i < std::min<size_t>(rows.size(), 40); ++i)
      std::printf("%9.2f ms  %s\n", rows[i].first / 1e3, rows[i].second.c_str());
    return status;
  }

  Options options_;
  CudaDevice device_;
  PlanModel plan_;
  PlanFlops flops_;
  std::unique_ptr<Communicator> world_;
  std::unique_ptr<Mesh> mesh_;
  StagePlan stages_;
  std::unique_ptr<TrainStep> step_;
  StepResult result_;
};

bool Parse(int argc, char** argv, Options& options) {
  if (argc < 2 || !kShapes.contains(argv[1])) return false;
  options.model = argv[1];
  for (int i = 2; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--cpu" || flag == "--profile") {
      (flag == "--cpu" ? options.cpu : options.profile) = true;
      continue;
    }
    if (++i == argc) return false;
    const std::string value = argv[i];
    const std::map<std::string, int64_t*> numbers = {{"--sequence", &options.sequence},
                                                     {"--documents", &options.documents},
                                                     {"--micro-batch", &options.micro_batch},
                                                     {"--batch", &options.batch},
                                                     {"--steps", &options.steps},
                                                     {"--mlp-chunk", &options.mlp_chunk}};
    if (flag == "--precision") {
      options.precision = value;
    } else if (flag == "--recompute") {
      options.recompute = value == "full"        ? RecomputeMode::kFull
                          : value == "selective" ? RecomputeMode::kSelective
                                                 : RecomputeMode::kNone;
    } else if (const auto number = numbers.find(flag); number != numbers.end()) {
      *number->second = std::stoll(value);
    } else {
      return false;
    }
  }
  return true;
}

int Main(int argc, char** argv) {
  Options options;
  if (!Parse(argc, argv, options)) {
    std::fprintf(stderr, "usage: see the beginning of tests/bench/step_bench.cc\n");
    return 2;
  }
  const absl::Status status = Bench(options).Run();
  if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace osler

int main(int argc, char** argv) { return osler::Main(argc, argv); }
