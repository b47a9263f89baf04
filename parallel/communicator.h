// A group of ranks and its collectives. Size 1 is legal and every collective is then the identity.
//
// A collective is started and then waited for; in between it goes on by itself (NCCL, MPI and TCP:
// while the caller computes; thread ranks: as their peers come). Collectives of one group start in
// the same order on all its ranks, with equal shapes and dtypes; different groups are independent
// of each other, so no order among groups can deadlock as long as what must overlap is started
// before it is waited for. The tensors may not be touched between start and Wait. On a GPU Wait
// orders the device's work and not the host's: what the host reads after it may be of a collective
// that failed, unless ThrowIfFailed, called after reading, returns.
//
// Values are combined in rank order, the same bits on every rank and back-end (NCCL excepted);
// tensors are contiguous CPU ones of fp32, fp64, int64, or bf16 (reduced in fp32, rounded once). An
// int64 sum wraps; a NaN wins a maximum.
//
// Errors: a wrong argument throws c10::Error where it is passed. A dead or silent rank, a time-out
// and ranks that call different collectives throw c10::DistError from Wait (CatchTorch makes it a
// device-class status); the group is of no further use then. Threads: one at a time may use a
// communicator and its handles, except that Abort, traffic and recorder are open to all.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "parallel/flight_recorder.h"

namespace osler {

enum class ReduceOp { kSum, kMax };

enum class CollectiveKind {
  kAllReduce,
  kAllGather,
  kReduceScatter,
  kBroadcast,
  kAllToAll,
  kSend,
  kReceive,
  kBarrier,
};
std::string_view NameOf(CollectiveKind kind);  // "all-reduce"
bool IsTransfer(CollectiveKind kind);

// A collective as one rank calls it.
struct Collective {
  CollectiveKind kind = CollectiveKind::kBarrier;
  std::vector<at::Tensor> tensors = {};  // worked on in place; all-to-all: what is sent, by rank
  std::vector<at::Tensor> receive = {};  // all-to-all only
  ReduceOp op = ReduceOp::kSum;
  int peer = 0;  // the root, or the other end of a transfer
  std::string what = {};
};

// What a back-end does for a collective under way.
class Work {
 public:
  virtual ~Work() = default;
  virtual void Wait() = 0;
  virtual bool Done() const = 0;
};

// A collective under way. Keeps its tensors alive. Dropping it without Wait is safe: the collective
// goes on.
class Handle {
 public:
  Handle() = default;  // done already
  explicit Handle(std::shared_ptr<Work> work) : work_(std::move(work)) {}
  // Until it is done on this rank; throws c10::DistError.
  void Wait() {
    if (work_ != nullptr) work_->Wait();
  }
  // Whether Wait would return, or throw, at once.
  bool Done() const { return work_ == nullptr || work_->Done(); }

 private:
  std::shared_ptr<Work> work_;
};

// What this rank sent to others since the group was made: bytes of tensors, without envelopes
// (docs/parallelism.md has the formulas), and how many collectives and transfers it took part in.
struct Traffic {
  int64_t bytes_sent = 0, collectives = 0;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // What it runs on: "local", "mpi", "tcp", "nccl" or "single".
  virtual std::string backend() const = 0;

  // `what` names the tensors for last words ("model.layers.3.mlp.up_proj.weight").
  [[nodiscard]] Handle AllReduce(at::Tensor x, ReduceOp op, std::string_view what = {});
  // In place, several tensors at once: each 1-D x has size() equal parts; rank r's part r is given,
  // all become whole.
  [[nodiscard]] Handle AllGather(std::vector<at::Tensor> xs, std::string_view what = {});
  // In place: part r of each becomes, on rank r, the sum over the ranks; the other parts are
  // undefined afterwards.
  [[nodiscard]] Handle ReduceScatter(std::vector<at::Tensor> xs, std::string_view what = {});
  [[nodiscard]] Handle Broadcast(at::Tensor x, int root, std::string_view what = {});
  // send[r] goes to rank r and arrives in its receive[own rank]: tensors of one dtype; element
  // counts agree pairwise, may differ between pairs and be zero; the own part is copied.
  [[nodiscard]] Handle AllToAll(std::vector<at::Tensor> send, std::vector<at::Tensor> receive,
                                std::string_view what = {});
  // Point to point between neighbours, r and r ± 1 around the end, apart from the order of the
  // group's collectives; what one rank sends to another arrives in the order sent. A Send may
  // complete only when its receiver has come: start both, then Wait.
  [[nodiscard]] Handle Send(at::Tensor x, int to, std::string_view what = {});
  [[nodiscard]] Handle Receive(at::Tensor x, int from, std::string_view what = {});
  // Before a group's first Send or Receive. Collective, blocking: neighbours that would otherwise
  // have to meet at their first transfer (GPUs) meet here.
  virtual void PrepareTransfers() {}
  [[nodiscard]] Handle Barrier();

  // All of the above end here: checks, counts, records and starts the collective.
  [[nodiscard]] Handle Run(Collective collective);

  // Ranks of one `color` ≥ 0 form a new group, ordered by (key, old rank), that shares this one's
  // time-out, fate and recorder. Collective, blocking. `name` is for last words ("tensor").
  std::unique_ptr<Communicator> Split(int color, int key, std::string_view name = "group");

  // After a failure that the ranks have not agreed on: this rank calls no further collective.
  // Thread ranks that wait for it in this group get a DistError that names it. MPI: this process
  // will not finalise MPI, so that mpirun sees it leave with its exit code and ends the ranks that
  // wait for it. A collective that throws does this by itself.
  virtual void Abandon() {}
  // From any thread: every wait of this rank, in this group and all those split from the same
  // world, throws a DistError with `reason` from now on.
  virtual void Abort(const std::string& /*reason*/) {}

  // Throws the DistError of the first failure that waits have not told, in any group of the world
  // (GPUs; elsewhere Wait tells).
  virtual void ThrowIfFailed() const {}

  const std::string& name() const { return name_; }
  Traffic traffic() const { return {bytes_sent(), collectives_.load(std::memory_order_relaxed)}; }
  // The rank's own, shared by all its groups.
  FlightRecorder& recorder() const { return *recorder_; }
  const std::shared_ptr<FlightRecorder>& shared_recorder() const { return recorder_; }

 protected:
  Communicator(std::string name, std::shared_ptr<FlightRecorder> recorder)
      : name_(std::move(name)), recorder_(std::move(recorder)) {}

  // Never called in a group of one nor with nothing to move. When it is done, the implementation
  // tells recorder().Finish(record).
  virtual Handle Start(Collective collective, uint64_t record) = 0;
  virtual std::unique_ptr<Communicator> StartSplit(int color, int key, std::string name) = 0;
  virtual int64_t bytes_sent() const = 0;
  virtual at::DeviceType device_type() const { return at::kCPU; }
  // How many collectives of the group this rank has started, empty ones too.
  int64_t sequence() const { return sequence_; }

 private:
  void Check(const Collective& collective) const;

  std::string name_;
  std::shared_ptr<FlightRecorder> recorder_;
  std::atomic<int64_t> collectives_ = 0;
  int64_t sequence_ = 0;
};

// A group of one.
std::unique_ptr<Communicator> MakeSingleCommunicator();

// Every rank returns OK if all passed OK; else every rank returns the error of the lowest failing
// rank, its exit class kept and "rank R: " before its message. Call it before a collective that a
// local failure would make others wait for. A group of one returns `local` as it is. Costs one
// small all-reduce when all is well.
absl::Status AgreeOnStatus(Communicator& comm, const absl::Status& local);

}  // namespace osler
