// osler doctor: what a run would find on this machine. Read only; nothing is installed or changed.
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <fmt/core.h>
#include <gnu/libc-version.h>
#include <google/protobuf/stubs/common.h>
#include <openssl/crypto.h>
#include <sched.h>
#include <torch/headeronly/version.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "model/registry.h"
#include "parallel/launch.h"
#include "parallel/mpi/mpi_communicator.h"
#include "parallel/world.h"
#include "tools/commands.h"
#include "tools/launch_flags.h"
#include "tools/version.h"

namespace osler {
namespace {

using Json = nlohmann::json;

constexpr double kGiB = 1024.0 * 1024 * 1024;
constexpr double kLowDiskGiB = 10, kLowMemoryGiB = 2;
constexpr int64_t kReduceMiB = 64;

struct DoctorOptions {
  std::string path = ".";
  bool json = false;
  LaunchFlags launch;
};

// The findings of one rank: lines for people and the same facts as JSON.
class Findings {
 public:
  void Ok(const char* name, std::string text) { Add(name, "ok", std::move(text)); }
  void Warn(const char* name, std::string text) { Add(name, "warn", std::move(text)); }
  // Keeps the first failure as the command's result.
  void Fail(const char* name, const absl::Status& status) {
    Add(name, "FAIL", std::string(status.message()));
    result_.Update(status);
  }
  Json& facts() { return facts_; }
  const absl::Status& result() const { return result_; }

  void PrintTable() const {
    for (const Json& line : lines_) {
      fmt::print(stderr, "  {:<5}{:<12}{}\n", line["level"].get<std::string>(),
                 line["name"].get<std::string>(), line["text"].get<std::string>());
    }
    fmt::print(stderr, "{}\n", result_.ok() ? "usable" : "NOT usable");
  }
  void PrintJson() const {
    Json all = facts_;
    all["checks"] = lines_;
    all["usable"] = result_.ok();
    fmt::print("{}\n", all.dump(-1, ' ', false, Json::error_handler_t::replace));
  }

 private:
  void Add(const char* name, const char* level, std::string text) {
    lines_.push_back({{"name", name}, {"level", level}, {"text", std::move(text)}});
  }

  Json facts_ = Json::object(), lines_ = Json::array();
  absl::Status result_;
};

void Versions(Findings& out) {
  const Json versions = {
      {"osler", kOslerVersion},
      {"libtorch", TORCH_VERSION},
      {"mpi", MpiLibraryVersion()},
      {"protobuf", google::protobuf::internal::VersionString(GOOGLE_PROTOBUF_VERSION)},
      {"abseil", std::to_string(ABSL_LTS_RELEASE_VERSION)},
      {"openssl", OpenSSL_version(OPENSSL_VERSION_STRING)},
      {"libc", gnu_get_libc_version()},
      {"compiler", __VERSION__},
  };
  out.facts()["versions"] = versions;
  out.Ok("osler", absl::StrCat(kOslerVersion, ", back-ends: CPU"));
  std::vector<std::string> libraries;
  for (const char* name : {"libtorch", "protobuf", "abseil", "openssl", "libc"}) {
    libraries.push_back(absl::StrCat(name, " ", versions[name].get<std::string>()));
  }
  out.Ok("libraries", absl::StrJoin(libraries, ", "));
  out.facts()["architectures"] = SupportedArchitectures();
  out.Ok("models", absl::StrJoin(SupportedArchitectures(), ", "));
}

// The value of the first "key : value" line of a /proc file; empty if there is none.
std::string ProcField(const std::string& text, std::string_view key) {
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::pair<std::string, std::string> field = absl::StrSplit(line, absl::MaxSplits(':', 1));
    if (absl::StripAsciiWhitespace(field.first) == absl::string_view(key.data(), key.size())) {
      return std::string(absl::StripAsciiWhitespace(field.second));
    }
  }
  return "";
}

void Cpu(Fs& fs, Findings& out) {
  const std::string info = fs.ReadFile("/proc/cpuinfo").value_or("");
  const std::vector<std::string> flags = absl::StrSplit(ProcField(info, "flags"), ' ');
  const std::vector<std::pair<std::string, std::string>> wanted = {{"avx2", "AVX2"},
                                                                   {"avx512f", "AVX-512"},
                                                                   {"avx512_bf16", "AVX512-BF16"},
                                                                   {"amx_bf16", "AMX-BF16"}};
  Json features = Json::object();
  std::vector<std::string> present;
  for (const auto& [flag, label] : wanted) {
    features[flag] = std::find(flags.begin(), flags.end(), flag) != flags.end();
    if (features[flag].get<bool>()) present.push_back(label);
  }
  const std::string model = ProcField(info, "model name");
  out.facts()["cpu"] = {
      {"model", model}, {"features", features}, {"libtorch_uses", at::get_cpu_capability()}};
  const std::string text =
      absl::StrCat(model.empty() ? "unknown model" : model, ": ",
                   present.empty() ? "no vector extensions known" : absl::StrJoin(present, ", "),
                   "; LibTorch uses ", at::get_cpu_capability());
  if (features["avx2"].get<bool>()) {
    out.Ok("cpu", text);
  } else {
    out.Warn("cpu", text + "; without AVX2 training is very slow");
  }
}

int CoresAllowed() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

void Threads(int ranks_here, bool launched, Findings& out) {
  const int online = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  const int allowed = CoresAllowed();
  const int threads = at::get_num_threads();
  out.facts()["cores"] = {
      {"online", online}, {"allowed", allowed}, {"threads", threads}, {"ranks_here", ranks_here}};
  const std::string text =
      fmt::format("{} online, {} allowed to this process, {} threads x {} {} here", online, allowed,
                  threads, ranks_here, ranks_here == 1 ? "rank" : "ranks");
  if (launched && allowed < online) {
    out.Warn("cores", text + ": the launcher binds ranks to cores; --bind-to none frees them");
  } else if (threads * ranks_here > allowed) {
    out.Warn("cores", fmt::format("{}: more threads than cores; set OMP_NUM_THREADS={}", text,
                                  std::max(1, allowed / ranks_here)));
  } else {
    out.Ok("cores", text);
  }
}

// Bytes of a "MemTotal: 123 kB" line; 0 if absent.
double MemBytes(const std::string& meminfo, std::string_view key) {
  const std::vector<std::string> words = absl::StrSplit(ProcField(meminfo, key), ' ');
  int64_t kib = 0;
  return absl::SimpleAtoi(words[0], &kib) ? static_cast<double>(kib) * 1024 : 0;
}

void Memory(Fs& fs, Findings& out) {
  const std::string info = fs.ReadFile("/proc/meminfo").value_or("");
  double total = MemBytes(info, "MemTotal"), available = MemBytes(info, "MemAvailable");
  // A container may allow less than the machine has: control groups version 2, then 1.
  for (const char* file :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    int64_t limit = 0;
    const auto text = fs.ReadFile(file);
    if (!text.ok() || !absl::SimpleAtoi(*text, &limit)) continue;
    total = std::min(total, static_cast<double>(limit));
    available = std::min(available, total);
    break;
  }
  out.facts()["memory_gib"] = {{"total", total / kGiB}, {"available", available / kGiB}};
  const std::string text =
      fmt::format("{:.1f} GiB available of {:.1f} GiB", available / kGiB, total / kGiB);
  if (available / kGiB < kLowMemoryGiB) {
    out.Warn("memory", text + ": little for training");
  } else {
    out.Ok("memory", text);
  }
}

void Disk(Fs& fs, const std::string& path, Findings& out) {
  const absl::StatusOr<int64_t> free = fs.FreeBytes(path);
  if (!free.ok()) {
    out.Fail("disk", Annotate(Reclassify(free.status(), ExitCode::kConfig), "--path"));
    return;
  }
  const double gib = static_cast<double>(*free) / kGiB;
  out.facts()["disk"] = {{"path", path}, {"free_gib", gib}};
  const std::string text = fmt::format("{:.1f} GiB free at {}", gib, path);
  if (gib < kLowDiskGiB) {
    out.Warn("disk", text + ": checkpoints may not fit");
  } else {
    out.Ok("disk", text);
  }
}

double SecondsOf(absl::FunctionRef<void()> work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Multiply-adds of a square product, counted as two operations each.
double Gflops(at::ScalarType dtype) {
  constexpr int64_t kN = 768;
  const at::Tensor a = at::full({kN, kN}, 0.5, dtype), b = at::full({kN, kN}, 0.25, dtype);
  at::mm(a, b);
  double best = 1e9, spent = 0;
  for (int run = 0; run < 20 && spent < 0.3; ++run) {
    const double seconds = SecondsOf([&] { at::mm(a, b); });
    best = std::min(best, seconds);
    spent += seconds;
  }
  return 2.0 * kN * kN * kN / best / 1e9;
}

void Gemm(Findings& out) {
  const double fp32 = Gflops(at::kFloat), bf16 = Gflops(at::kBFloat16);
  out.facts()["gemm_gflops"] = {{"fp32", fp32}, {"bf16", bf16}};
  const std::string text =
      fmt::format("{:.0f} GFLOP/s fp32, {:.0f} GFLOP/s bf16 on this rank's threads", fp32, bf16);
  if (bf16 < fp32) {
    out.Ok("gemm", text + ": bf16 saves memory here, not time");
  } else {
    out.Ok("gemm", text);
  }
}

// Every rank's host name, by rank.
std::vector<std::string> GatherHosts(Communicator& comm) {
  constexpr int64_t kWords = 32;
  at::Tensor rows = at::zeros({comm.size(), kWords}, at::kLong);
  char* bytes = static_cast<char*>(rows.mutable_data_ptr());
  constexpr size_t kRow = kWords * sizeof(int64_t);
  gethostname(bytes + static_cast<size_t>(comm.rank()) * kRow, kRow - 1);
  comm.AllReduce(rows, ReduceOp::kSum).Wait();  // every other rank's row is zero
  std::vector<std::string> hosts;
  for (int r = 0; r < comm.size(); ++r) hosts.emplace_back(bytes + static_cast<size_t>(r) * kRow);
  return hosts;
}

void AllReduceSpeed(Communicator& comm, Findings& out) {
  at::Tensor x = at::ones({kReduceMiB << 18}, at::kFloat);
  comm.AllReduce(x, ReduceOp::kMax).Wait();
  std::vector<double> seconds;
  for (int run = 0; run < 7; ++run) {
    comm.Barrier().Wait();
    seconds.push_back(SecondsOf([&] { comm.AllReduce(x, ReduceOp::kMax).Wait(); }));
  }
  std::nth_element(seconds.begin(), seconds.begin() + 3, seconds.end());
  const double median = seconds[3];
  at::Tensor small = at::ones({1}, at::kLong);
  constexpr int kPings = 200;
  const double latency = SecondsOf([&] {
                           for (int i = 0; i < kPings; ++i)
                             comm.AllReduce(small, ReduceOp::kMax).Wait();
                         }) /
                         kPings;
  const double sent = 2.0 * (comm.size() - 1) / comm.size() * static_cast<double>(x.nbytes());
  out.facts()["all_reduce"] = {{"mib", kReduceMiB},
                               {"milliseconds", median * 1e3},
                               {"gb_per_s", static_cast<double>(x.nbytes()) / median / 1e9},
                               {"bus_gb_per_s", sent / median / 1e9},
                               {"latency_us", latency * 1e6}};
  out.Ok("all-reduce",
         fmt::format("{} MiB fp32 over {} ranks in {:.1f} ms: {:.2f} GB/s a rank each way; {:.0f} "
                     "us for 8 bytes",
                     kReduceMiB, comm.size(), median * 1e3, sent / median / 1e9, latency * 1e6));
}

void MpirunPresence(Fs& fs, Findings& out) {
  const char* path = std::getenv("PATH");
  std::string found;
  for (const absl::string_view directory : absl::StrSplit(path == nullptr ? "" : path, ':')) {
    const std::string candidate = absl::StrCat(directory, "/mpirun");
    if (found.empty() && fs.Exists(candidate)) found = candidate;
  }
  out.facts()["mpirun"] = found;
  if (found.empty()) {
    out.Warn("mpi", MpiLibraryVersion() + "; no mpirun in PATH, so only one rank can run");
    return;
  }
  const bool root = geteuid() == 0 && std::getenv("OMPI_ALLOW_RUN_AS_ROOT") == nullptr;
  out.Ok("mpi", absl::StrCat(MpiLibraryVersion(), "; ", found,
                             root ? " (as root: --allow-run-as-root)" : "",
                             "; test the ranks with mpirun -n 2 osler doctor"));
}

// Everything that takes all ranks. Fills `ranks_here` with the number of ranks on this rank's host.
void Group(Communicator& world, const LaunchInfo& launch, Fs& fs, int& ranks_here, Findings& out) {
  const std::vector<std::string> hosts = GatherHosts(world);
  ranks_here = static_cast<int>(
      std::count(hosts.begin(), hosts.end(), hosts[static_cast<size_t>(world.rank())]));
  out.facts()["launch"] = {
      {"launcher", launch.launcher}, {"world_size", world.size()}, {"hosts", hosts}};
  if (launch.launcher == "alone") {
    out.Ok("launch", absl::StrCat("one process alone on ", hosts[0]));
    MpirunPresence(fs, out);
    return;
  }
  std::vector<std::string> places;
  for (size_t r = 0; r < hosts.size(); ++r)
    places.push_back(absl::StrCat("rank ", r, " on ", hosts[r]));
  out.Ok("launch", absl::StrCat(launch.launcher, ": ", absl::StrJoin(places, ", ")));
  const bool mpi = launch.network == Network::kMpi;
  out.Ok(mpi ? "mpi" : "tcp",
         absl::StrCat(mpi ? MpiLibraryVersion() : "TCP", ": all ranks answer"));
}

// `rank` becomes this process's rank, as soon as it is known.
absl::Status Examine(Fs& fs, const DoctorOptions& options, int& rank, Findings& out) {
  Versions(out);
  Cpu(fs, out);
  Memory(fs, out);
  Disk(fs, options.path, out);
  OSLER_ASSIGN_OR_RETURN(const LaunchInfo launch, DetectLaunch(options.launch));
  rank = launch.rank;
  SetLogRank(launch.rank, launch.world_size);
  OSLER_ASSIGN_OR_RETURN(const World world, ConnectWorld(launch));
  return CatchTorch([&] {
    int ranks_here = 1;
    Group(*world.comm, launch, fs, ranks_here, out);
    Threads(ranks_here, launch.launcher != "alone", out);
    Gemm(out);  // all ranks at once, as in training
    if (world.comm->size() > 1) AllReduceSpeed(*world.comm, out);
    return AgreeOnStatus(*world.comm, out.result());
  });
}

absl::Status RunDoctor(Fs& fs, const DoctorOptions& options) {
  Findings out;
  int rank = 0;
  const absl::Status status = Examine(fs, options, rank, out);
  if (!status.ok() && out.result().ok()) out.Fail("launch", status);
  if (rank == 0) {
    out.PrintTable();
    if (options.json) out.PrintJson();
  }
  return status;
}

}  // namespace

void AddDoctorCommand(CLI::App& app, Fs& fs, Action& action) {
  CLI::App* command =
      app.add_subcommand("doctor", "Look at this machine: versions, CPU, memory, disk, MPI, speed");
  auto options = std::make_shared<DoctorOptions>();
  command
      ->add_option("--path", options->path,
                   "Where runs would be written: its free space is checked")
      ->capture_default_str();
  command->add_flag("--json", options->json, "Also print the findings as one JSON line on stdout");
  AddLaunchFlags(*command, options->launch);
  command->footer(
      "Exit code 0 when osler can run here. Under mpirun or torchrun it also names the ranks' "
      "hosts and "
      "measures the all-reduce.\n"
      "Example: osler doctor --path /scratch/runs --json\n"
      "Example: mpirun -n 2 --bind-to none osler doctor");
  command->callback(
      [&fs, &action, options] { action = [&fs, options] { return RunDoctor(fs, *options); }; });
}

}  // namespace osler
