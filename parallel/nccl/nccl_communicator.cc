#include "parallel/nccl/nccl_communicator.h"

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <map>
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
      case CollectiveKind::kSend: return f_.ncclSend(all, n, TypeOf(x), Other(), comm, stream);
      default: return f_.ncclRecv(all, n, TypeOf(x), Other(), comm, stream);
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

  int Other() const { return 1 - group_.rank(); }  // of a pair
  void Check(ncclResult_t result) const { group_.Check(result, what_); }

  NcclGroup& group_;
  const NcclLibrary& f_;
  const Collective& collective_;
  const std::string& what_;
};

class NcclWork : public Work {
 public:
  NcclWork(std::shared_ptr<NcclGroup> group, Collective collective, uint64_t record)
      : group_(std::move(group)),
        collective_(std::move(collective)),
        what_(absl::StrCat(std::string(NameOf(collective_.kind)),
                           collective_.what.empty() ? "" : " of ", collective_.what)) {
    if (Sums(collective_)) Widen();
    const absl::Status launched = CatchTorch([&] {
      end_ = group_->Launch([&] { Enqueuer(*group_, collective_, what_).Run(); }, what_, record);
      return absl::OkStatus();
    });
    if (!launched.ok()) group_->world().Fail(std::string(launched.message()));  // waits say it
  }
  ~NcclWork() override {
    if (end_ == nullptr || awaited_) return;
    // Nobody waited: memory that is given back now is used again only after the end.
    (void)CatchTorch([&] {
      Take();
      return absl::OkStatus();
    });
  }

  // The default stream waits, not the caller.
  void Wait() override {
    if (end_ != nullptr && !awaited_) Take();
    group_->world().ThrowIfFailed();
  }

  bool Done() const override { return end_ == nullptr || end_->Query() != cudaErrorNotReady; }

 private:
  // bf16 sums are made in fp32.
  void Widen() {
    for (at::Tensor& x : collective_.tensors) {
      if (x.scalar_type() != at::kBFloat16) continue;
      narrow_.emplace_back(x, x.to(at::kFloat));
      x = narrow_.back().second;
    }
  }
  void Take() {
    awaited_ = true;
    end_->HoldBack(kDefaultStream);
    for (auto& [narrow, wide] : narrow_) narrow.copy_(wide);
  }

  const std::shared_ptr<NcclGroup> group_;
  Collective collective_;
  const std::string what_;
  std::vector<std::pair<at::Tensor, at::Tensor>> narrow_;
  std::shared_ptr<const NcclEvent> end_;  // null: the launch failed
  bool awaited_ = false;
};

// The two ways between two ranks, each with a communicator and a stream of its own: what waits on
// one for its other end holds up nothing else. Both ranks end them in the same order.
struct NcclPair {
  std::shared_ptr<NcclGroup> up, down;  // from the lower rank to the higher one, and back
};

class NcclCommunicator : public Communicator {
 public:
  // Collective over `cpu`.
  NcclCommunicator(std::shared_ptr<NcclWorld> world, std::shared_ptr<Communicator> cpu)
      : Communicator(cpu->name(), cpu->shared_recorder()),
        world_(std::move(world)),
        cpu_(std::move(cpu)),
        group_(std::make_shared<NcclGroup>(world_, *cpu_, NcclUse::kCollectives)) {}

  void PrepareTransfers() override {
    if (size() == 1 || !pairs_.empty()) return;
    // Neighbours meet two by two: 0 and 1, 2 and 3, …; then 1 and 2, 3 and 4, …; and the ends.
    const int last = size() - 1;
    for (const int begin : {0, 1}) {
      const int low = rank() - (rank() + begin) % 2;
      Connect(low >= 0 && low < last ? low : -1, low + 1);
    }
    if (size() > 2) Connect(rank() == 0 || rank() == last ? 0 : -1, last);
  }

  int rank() const override { return cpu_->rank(); }
  int size() const override { return cpu_->size(); }
  std::string backend() const override { return "nccl"; }
  void Abandon() override { cpu_->Abandon(); }
  void Abort(const std::string& reason) override { world_->Fail(reason); }
  void ThrowIfFailed() const override { world_->ThrowIfFailed(); }

 protected:
  at::DeviceType device_type() const override { return world_->library()->memory; }
  int64_t bytes_sent() const override { return bytes_sent_.load(std::memory_order_relaxed); }

  Handle Start(Collective collective, uint64_t record) override {
    bytes_sent_ += BytesSent(collective, rank(), size());
    std::shared_ptr<NcclGroup> group = GroupFor(collective);
    return Handle(std::make_shared<NcclWork>(std::move(group), std::move(collective), record));
  }

  std::unique_ptr<Communicator> StartSplit(int color, int key, std::string name) override {
    std::unique_ptr<Communicator> cpu = cpu_->Split(color, key, name);
    return std::make_unique<NcclCommunicator>(world_, std::move(cpu));
  }

 private:
  // Collective over the whole group: ranks `low` and `high` become a pair; low < 0: none.
  void Connect(int low, int high) {
    const std::unique_ptr<Communicator> cpu = cpu_->Split(low + 1, rank(), name());
    if (low < 0) return;
    NcclPair& pair = pairs_[rank() == low ? high : low];
    pair.up = std::make_shared<NcclGroup>(world_, *cpu, NcclUse::kTransfers);
    pair.down = std::make_shared<NcclGroup>(world_, *cpu, NcclUse::kTransfers);
  }

  std::shared_ptr<NcclGroup> GroupFor(const Collective& collective) const {
    if (!IsTransfer(collective.kind)) return group_;
    const auto pair = pairs_.find(collective.peer);
    TORCH_CHECK(pair != pairs_.end(), "a ", NameOf(collective.kind), " in group ", name(),
                " before PrepareTransfers");
    const bool sends = collective.kind == CollectiveKind::kSend;
    return sends == (collective.peer > rank()) ? pair->second.up : pair->second.down;
  }

  const std::shared_ptr<NcclWorld> world_;
  const std::shared_ptr<Communicator> cpu_;
  const std::shared_ptr<NcclGroup> group_;
  std::map<int, NcclPair> pairs_;  // by neighbour
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
                                                          const NcclOptions& options) {
  std::shared_ptr<const NcclLibrary> library = options.library;
  OSLER_RETURN_IF_ERROR(AgreeOnStatus(cpu, [&]() -> absl::Status {
    if (library == nullptr) {
      OSLER_ASSIGN_OR_RETURN(library, LoadNccl());
    }
    return FindDevice(*library, device);
  }()));
  std::unique_ptr<Communicator> connected;
  const absl::Status status = CatchTorch([&] {
    const std::shared_ptr<Communicator> own = cpu.Split(0, cpu.rank(), cpu.name());
    connected = std::make_unique<NcclCommunicator>(
        std::make_shared<NcclWorld>(std::move(library), own, device, options), own);
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
