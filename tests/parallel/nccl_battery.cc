// The batteries over NCCL: every rank of a launch (mpirun, torchrun-style variables, or alone) runs
// this program on the same GPU or on one of its own. Where there is none it is one skipped test,
// with the reason.
//
//   mpirun -n 2 parallel_nccl_battery [failures]
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "base/errors.h"
#include "kernels/cuda/device.h"
#include "parallel/launch.h"
#include "parallel/nccl/nccl_communicator.h"
#include "parallel/world.h"
#include "tests/parallel/battery_main.h"

namespace osler::testing {
namespace {

// Takes CPU tensors, as the battery makes them, through the GPU.
class ThroughGpu : public Communicator {
 public:
  explicit ThroughGpu(std::unique_ptr<Communicator> nccl)
      : Communicator(nccl->name(), std::make_shared<FlightRecorder>()), nccl_(std::move(nccl)) {}
  int rank() const override { return nccl_->rank(); }
  int size() const override { return nccl_->size(); }
  std::string backend() const override { return nccl_->backend(); }
  void Abandon() override { nccl_->Abandon(); }
  void Abort(const std::string& reason) override { nccl_->Abort(reason); }
  void PrepareTransfers() override { nccl_->PrepareTransfers(); }

 protected:
  Handle Start(Collective collective, uint64_t record) override {
    auto copy = std::make_shared<Copy>(*this, record);
    for (std::vector<at::Tensor>* list : {&collective.tensors, &collective.receive}) {
      for (at::Tensor& x : *list) {
        copy->pairs.emplace_back(x, x.to(at::kCUDA));
        x = copy->pairs.back().second;
      }
    }
    copy->handle = nccl_->Run(std::move(collective));
    return Handle(std::move(copy));
  }
  std::unique_ptr<Communicator> StartSplit(int color, int key, std::string name) override {
    return std::make_unique<ThroughGpu>(nccl_->Split(color, key, name));
  }
  int64_t bytes_sent() const override { return nccl_->traffic().bytes_sent; }

 private:
  struct Copy : public Work {
    Copy(ThroughGpu& comm, uint64_t record) : comm(comm), nccl(*comm.nccl_), record(record) {}
    void Wait() override {
      handle.Wait();
      for (auto& [cpu, gpu] : pairs) cpu.copy_(gpu);
      nccl.ThrowIfFailed();
      comm.recorder().Finish(record);
    }
    bool Done() const override { return handle.Done(); }

    ThroughGpu& comm;
    Communicator& nccl;
    const uint64_t record;
    std::vector<std::pair<at::Tensor, at::Tensor>> pairs;
    Handle handle;
  };

  std::unique_ptr<Communicator> nccl_;
};

// What NCCL does not promise (its order of addition, NaN in a maximum), what needs the result
// without a wait or the recorder, which this program's copies disturb, and the CPU's own formulas
// and checks.
constexpr const char* kLeftOut =
    "-*AllReduceEqualsRankOrder*:*ReduceScatterSumsOwnPart*:*MaxKeepsNan*:*ItGoesOnWithoutAWait*:"
    "*DroppedHandlesGoOn*:*TrafficFollows*:*TheRecorder*:*ToldApart*:*Skipped*:*Disagrees*:"
    "*AnotherSize*:*NamesWhoIsMissing*";

class SkippedBattery : public ::testing::Test {
 public:
  explicit SkippedBattery(std::string reason) : reason_(std::move(reason)) {}
  void TestBody() override { GTEST_SKIP() << reason_; }

 private:
  const std::string reason_;
};

// The first rank tells.
int SkipBattery(int argc, char** argv, int rank, const std::string& reason) {
  if (rank != 0) return 0;
  ::testing::InitGoogleTest(&argc, argv);
  ::testing::RegisterTest("Nccl", "Battery", nullptr, nullptr, __FILE__, __LINE__,
                          [&]() -> ::testing::Test* { return new SkippedBattery(reason); });
  return RUN_ALL_TESTS();
}

int Main(int argc, char** argv) {
  const auto launch = DetectLaunch();
  if (!launch.ok()) return static_cast<int>(ExitCodeOf(launch.status()));
  // NCCL refuses two ranks on one GPU of one host; so each rank is a host of its own.
  setenv("NCCL_HOSTID", std::to_string(launch->rank).c_str(), /*overwrite=*/1);
  const auto world = ConnectWorld(*launch, {}, BatteryOptions(argc, argv));
  if (!world.ok()) {
    std::printf("NCCL battery not run: %s\n", std::string(world.status().message()).c_str());
    return static_cast<int>(ExitCodeOf(world.status()));
  }
  auto nccl = ConnectNccl(*world->comm, 0, {.timeout = BatteryOptions(argc, argv).timeout});
  if (!nccl.ok()) {
    return SkipBattery(argc, argv, launch->rank, std::string(nccl.status().message()));
  }
  if (const auto device = OpenCudaDevice(0); !device.ok()) {
    std::printf("NCCL battery not run: %s\n", std::string(device.status().message()).c_str());
    return 1;
  }
  ::testing::GTEST_FLAG(filter) = kLeftOut;
  ThroughGpu gpu(*std::move(nccl));
  return RunBattery(argc, argv, gpu);
}

}  // namespace
}  // namespace osler::testing

int main(int argc, char** argv) { return osler::testing::Main(argc, argv); }
