#include "parallel/nccl/nccl_communicator.h"

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "parallel/nccl/nccl_group.h"

namespace osler {
namespace {

ncclDataType_t TypeOf(const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat: return ncclFloat32;
    case at::kDouble: return ncclFloat64;
    case at::kBFloat16: return ncclBfloat16;
    default: return ncclInt64;  // Run has checked
  }
}

char* PartOf(const at::Tensor& x, int64_t begin) {
  return static_cast<char*>(x.mutable_data_ptr()) + begin * static_cast<int64_t>(x.element_size());
}

bool Sums(const Collective& collective) {
  return collective.kind == CollectiveKind::kReduceScatter ||
         (collective.kind == CollectiveKind::kAllReduce && collective.op == ReduceOp::kSum);
}

// What this rank sends, by NCCL's usual algorithm, the ring.
int64_t BytesSent(const Collective& collective, int rank, int size) {
  int64_t own = 0, bytes = 0;
  for (const at::Tensor& x : collective.tensors) bytes += static_cast<int64_t>(x.nbytes());
  switch (collective.kind) {
    case CollectiveKind::kAllReduce: return 2 * bytes * (size - 1) / size;
    case CollectiveKind::kAllGather:
    case CollectiveKind::kReduceScatter: return bytes / size * (size - 1);
    case CollectiveKind::kBroadcast:
      return (rank + 1) % size == collective.peer ? 0 : bytes;  // the ring's last sends nothing
    case CollectiveKind::kAllToAll:
      own = static_cast<int64_t>(collective.tensors[static_cast<size_t>(rank)].nbytes());
      return bytes - own;
    case CollectiveKind::kSend: return bytes;
    default: return 0;
  }
}

// Puts one collective's calls into the group's stream; within NcclGroup::Launch.
class Enqueuer {
 public:
  Enqueuer(NcclGroup& group, const Collective& collective, const std::string& what)
      : group_(group), f_(group.library()), collective_(collective), what_(what) {}

  void Run() const {
    switch (collective_.kind) {
      case CollectiveKind::kAllToAll: return ExchangeAll();
      case CollectiveKind::kBarrier:
        return Check(f_.ncclAllReduce(group_.barrier_word(), group_.barrier_word(), 1, ncclInt64,
                                      ncclMax, group_.comm(), group_.stream()));
      default: break;
    }
    for (const at::Tensor& x : collective_.tensors) Check(Call(x));
  }

 private:
  ncclResult_t Call(const at::Tensor& x) const {
    const auto n = static_cast<size_t>(x.numel());
    const int64_t part = x.numel() / group_.size();
    char* const all = PartOf(x, 0);
    char* const own = PartOf(x, part * group_.rank());
    const ncclRedOp_t op = collective_.op == ReduceOp::kSum ? ncclSum : ncclMax;
    const ncclComm_t comm = group_.comm();
    const cudaStream_t stream = group_.stream();
    switch (collective_.kind) {
      case CollectiveKind::kAllReduce:
        return f_.ncclAllReduce(all, all, n, TypeOf(x), op, comm, stream);
      case CollectiveKind::kAllGather:
        return f_.ncclAllGather(own, all, static_cast<size_t>(part), TypeOf(x), comm, stream);
      case CollectiveKind::kReduceScatter:
        return f_.ncclReduceScatter(all, own, static_cast<size_t>(part), TypeOf(x), ncclSum, comm,
                                    stream);
      case CollectiveKind::kBroadcast:
        return f_.ncclBroadcast(all, all, n, TypeOf(x), collective_.peer, comm, stream);
      case CollectiveKind::kSend:
        return f_.ncclSend(all, n, TypeOf(x), collective_.peer, comm, stream);
      default: return f_.ncclRecv(all, n, TypeOf(x), collective_.peer, comm, stream);
    }
  }

  void ExchangeAll() const {
    for (int r = 0; r < group_.size(); ++r) {
      const at::Tensor& send = collective_.tensors[static_cast<size_t>(r)];
      const at::Tensor& receive = collective_.receive[static_cast<size_t>(r)];
      if (r == group_.rank()) {
        group_.Check(f_.cudaMemcpyAsync(PartOf(receive, 0), PartOf(send, 0), send.nbytes(),
                                        cudaMemcpyDeviceToDevice, group_.stream()),
                     what_);
        continue;
      }
      const auto out = static_cast<size_t>(send.numel()), in = static_cast<size_t>(receive.numel());
      if (out > 0)
        Check(f_.ncclSend(PartOf(send, 0), out, TypeOf(send), r, group_.comm(), group_.stream()));
      if (in > 0)
        Check(f_.ncclRecv(PartOf(receive, 0), in, TypeOf(receive), r, group_.comm(),
                          group_.stream()));
    }
  }

  void Check(ncclResult_t result) const { group_.Check(result, what_); }

  NcclGroup& group_;
  const NcclLibrary& f_;
  const Collective& collective_;
  const std::string& what_;
};

class NcclWork;

// What a communicator and its handles share.
struct NcclQueue {
  NcclQueue(std::shared_ptr<NcclWorld> world, Communicator& cpu)
      : group(std::move(world), cpu), recorder(cpu.shared_recorder()) {}
  // Launches what has not been, as one. An empty queue: nothing.
  void Flush();

  NcclGroup group;
  std::shared_ptr<FlightRecorder> recorder;
  std::vector<std::shared_ptr<NcclWork>> waiting;  // started, not launched: transfers
};

class NcclWork : public Work {
 public:
  NcclWork(std::shared_ptr<NcclQueue> queue, Collective collective, uint64_t record)
      : queue_(std::move(queue)),
        collective_(std::move(collective)),
        what_(absl::StrCat(std::string(NameOf(collective_.kind)),
                           collective_.what.empty() ? "" : " of ", collective_.what)),
        record_(record) {
    if (!Sums(collective_)) return;
    for (at::Tensor& x : collective_.tensors) {
      if (x.scalar_type() != at::kBFloat16) continue;
      narrow_.emplace_back(x, x.to(at::kFloat));
      x = narrow_.back().second;
    }
  }
  ~NcclWork() override {
    if (end_ == nullptr || awaited_) return;
    // Nobody waited: memory that is given back now is used again only after the end.
    end_->HoldBack(/*stream=*/nullptr);
    (void)CatchTorch([&] {
      Round();
      return absl::OkStatus();
    });
  }

  void Wait() override {
    if (awaited_) return;
    queue_->Flush();
    if (end_ == nullptr) queue_->group.Throw();  // the launch failed, and said so to nobody yet
    queue_->group.Await(*end_, what_);
    awaited_ = true;
    Round();
    queue_->recorder->Finish(record_);
  }

  bool Done() const override {
    const absl::Status flushed = CatchTorch([&] {
      queue_->Flush();
      return absl::OkStatus();
    });
    return !flushed.ok() || end_ == nullptr || end_->Query() != cudaErrorNotReady;
  }

  void Enqueue() const { Enqueuer(queue_->group, collective_, what_).Run(); }
  void Launched(std::shared_ptr<NcclEvent> end) { end_ = std::move(end); }
  const std::string& what() const { return what_; }
  int64_t BytesSent() const {
    return osler::BytesSent(collective_, queue_->group.rank(), queue_->group.size());
  }

 private:
  // bf16 sums are made in fp32.
  void Round() {
    for (auto& [narrow, wide] : narrow_) narrow.copy_(wide);
  }

  const std::shared_ptr<NcclQueue> queue_;
  Collective collective_;
  const std::string what_;
  const uint64_t record_;
  std::vector<std::pair<at::Tensor, at::Tensor>> narrow_;
  std::shared_ptr<NcclEvent> end_;
  bool awaited_ = false;
};

void NcclQueue::Flush() {
  const std::vector<std::shared_ptr<NcclWork>> works = std::exchange(waiting, {});
  if (works.empty()) return;
  const auto enqueue = [&] {
    for (const auto& work : works) work->Enqueue();
  };
  const std::shared_ptr<NcclEvent> end = group.Launch(enqueue, works.front()->what());
  for (const auto& work : works) work->Launched(end);
}

class NcclCommunicator : public Communicator {
 public:
  // Collective over `cpu`.
  NcclCommunicator(std::shared_ptr<NcclWorld> world, std::unique_ptr<Communicator> cpu)
      : Communicator(cpu->name(), cpu->shared_recorder()),
        world_(world),
        cpu_(std::move(cpu)),
        queue_(std::make_shared<NcclQueue>(std::move(world), *cpu_)) {}
  ~NcclCommunicator() override { TryFlush(); }  // transfers that nobody waits for go on

  int rank() const override { return cpu_->rank(); }
  int size() const override { return cpu_->size(); }
  std::string backend() const override { return "nccl"; }
  void Abandon() override { cpu_->Abandon(); }
  void Abort(const std::string& reason) override {
    world_->Abort(reason);
    cpu_->Abort(reason);
  }

 protected:
  at::DeviceType device_type() const override { return at::kCUDA; }
  int64_t bytes_sent() const override { return bytes_sent_.load(std::memory_order_relaxed); }

  Handle Start(Collective collective, uint64_t record) override {
    const bool transfer =
        collective.kind == CollectiveKind::kSend || collective.kind == CollectiveKind::kReceive;
    auto work = std::make_shared<NcclWork>(queue_, std::move(collective), record);
    bytes_sent_ += work->BytesSent();
    queue_->waiting.push_back(work);
    if (!transfer) TryFlush();
    return Handle(std::move(work));
  }

  std::unique_ptr<Communicator> StartSplit(int color, int key, std::string name) override {
    std::unique_ptr<Communicator> cpu = cpu_->Split(color, key, name);
    return std::make_unique<NcclCommunicator>(world_, std::move(cpu));
  }

 private:
  // What fails is what waits will say.
  void TryFlush() {
    (void)CatchTorch([&] {
      queue_->Flush();
      return absl::OkStatus();
    });
  }

  const std::shared_ptr<NcclWorld> world_;
  const std::unique_ptr<Communicator> cpu_;
  const std::shared_ptr<NcclQueue> queue_;
  std::atomic<int64_t> bytes_sent_ = 0;
};

absl::Status FindDevice(const NcclLibrary& library, int device) {
  int count = 0;
  const cudaError_t result = library.cudaGetDeviceCount(&count);
  if (result != cudaSuccess || count == 0) {
    return DeviceError(
        absl::StrCat("NCCL was asked for, but there is no GPU: CUDA says: ",
                     result == cudaSuccess ? "0 devices" : library.cudaGetErrorString(result),
                     "; use MPI or TCP on the CPU"));
  }
  if (device < count) return absl::OkStatus();
  return DeviceError(absl::StrCat("NCCL was asked for on GPU ", device, ", but this host has ",
                                  count, ": start as many ranks on a host as it has GPUs"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> ConnectNccl(Communicator& cpu, int device,
                                                          const CommunicatorOptions& options) {
  auto world = std::make_shared<NcclWorld>();
  world->device = device;
  world->rank = cpu.rank();
  world->options = options;
  OSLER_RETURN_IF_ERROR(AgreeOnStatus(cpu, [&]() -> absl::Status {
    OSLER_ASSIGN_OR_RETURN(world->library, LoadNccl());
    return FindDevice(*world->library, device);
  }()));
  std::unique_ptr<Communicator> connected;
  const absl::Status status = CatchTorch([&] {
    connected = std::make_unique<NcclCommunicator>(world, cpu.Split(0, cpu.rank(), cpu.name()));
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return connected;
}

std::string NcclVersion() {
  const auto library = LoadNccl();
  if (!library.ok()) return std::string(library.status().message());
  int version = 0;
  (*library)->ncclGetVersion(&version);
  return absl::StrCat("NCCL ", version / 10000, ".", version / 100 % 100, ".", version % 100);
}

}  // namespace osler
