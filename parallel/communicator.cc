#include "parallel/communicator.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "base/errors.h"
#include "base/torch_status.h"
#include "parallel/reduce.h"

namespace osler {
namespace {

class SingleCommunicator : public Communicator {
 public:
  SingleCommunicator(std::string name, std::shared_ptr<FlightRecorder> recorder)
      : Communicator(std::move(name), std::move(recorder)) {}
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::string backend() const override { return "single"; }

 protected:
  Handle Start(Collective, uint64_t) override { return Handle(); }
  std::unique_ptr<Communicator> StartSplit(int, int, std::string name) override {
    return std::make_unique<SingleCommunicator>(std::move(name), shared_recorder());
  }
  int64_t bytes_sent() const override { return 0; }
};

int64_t BytesOf(const std::vector<at::Tensor>& tensors) {
  int64_t bytes = 0;
  for (const at::Tensor& x : tensors) bytes += static_cast<int64_t>(x.nbytes());
  return bytes;
}

constexpr int64_t kWord = sizeof(int64_t);

// The error of rank `root` on every rank; `local` is read there only. Text travels in int64 words,
// since collectives know no bytes: first {exit code, status code, length}, then the message.
absl::Status ShareError(Communicator& comm, int root, const absl::Status& local) {
  at::Tensor head = at::zeros({3}, at::kLong);
  auto* fields = head.mutable_data_ptr<int64_t>();
  const std::string message(local.message());
  if (comm.rank() == root) {
    fields[0] = static_cast<int64_t>(ExitCodeOf(local));
    fields[1] = static_cast<int64_t>(local.code());
    fields[2] = static_cast<int64_t>(message.size());
  }
  comm.Broadcast(head, root, "status").Wait();
  const int64_t length = fields[2];
  at::Tensor words = at::zeros({(length + kWord - 1) / kWord}, at::kLong);
  char* text = static_cast<char*>(words.mutable_data_ptr());
  if (comm.rank() == root && length > 0) std::memcpy(text, message.data(), message.size());
  comm.Broadcast(words, root, "status").Wait();
  const absl::Status status(static_cast<absl::StatusCode>(fields[1]),
                            {text, static_cast<size_t>(length)});
  return Annotate(Reclassify(status, static_cast<ExitCode>(fields[0])),
                  absl::StrCat("rank ", root));
}

}  // namespace

std::unique_ptr<Communicator> MakeSingleCommunicator() {
  return std::make_unique<SingleCommunicator>("world", std::make_shared<FlightRecorder>());
}

std::string_view NameOf(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::kAllReduce: return "all-reduce";
    case CollectiveKind::kAllGather: return "all-gather";
    case CollectiveKind::kReduceScatter: return "reduce-scatter";
    case CollectiveKind::kBroadcast: return "broadcast";
    case CollectiveKind::kAllToAll: return "all-to-all";
    case CollectiveKind::kSend: return "send";
    case CollectiveKind::kReceive: return "receive";
    case CollectiveKind::kBarrier: return "barrier";
  }
  return "unknown collective";
}

bool IsTransfer(CollectiveKind kind) {
  return kind == CollectiveKind::kSend || kind == CollectiveKind::kReceive;
}

Handle Communicator::AllReduce(at::Tensor x, ReduceOp op, std::string_view what) {
  return Run({.kind = CollectiveKind::kAllReduce,
              .tensors = {std::move(x)},
              .op = op,
              .what = std::string(what)});
}

Handle Communicator::AllGather(std::vector<at::Tensor> xs, std::string_view what) {
  return Run(
      {.kind = CollectiveKind::kAllGather, .tensors = std::move(xs), .what = std::string(what)});
}

Handle Communicator::ReduceScatter(std::vector<at::Tensor> xs, std::string_view what) {
  return Run({.kind = CollectiveKind::kReduceScatter,
              .tensors = std::move(xs),
              .what = std::string(what)});
}

Handle Communicator::Broadcast(at::Tensor x, int root, std::string_view what) {
  return Run({.kind = CollectiveKind::kBroadcast,
              .tensors = {std::move(x)},
              .peer = root,
              .what = std::string(what)});
}

Handle Communicator::AllToAll(std::vector<at::Tensor> send, std::vector<at::Tensor> receive,
                              std::string_view what) {
  return Run({.kind = CollectiveKind::kAllToAll,
              .tensors = std::move(send),
              .receive = std::move(receive),
              .what = std::string(what)});
}

Handle Communicator::Send(at::Tensor x, int to, std::string_view what) {
  return Run({.kind = CollectiveKind::kSend,
              .tensors = {std::move(x)},
              .peer = to,
              .what = std::string(what)});
}

Handle Communicator::Receive(at::Tensor x, int from, std::string_view what) {
  return Run({.kind = CollectiveKind::kReceive,
              .tensors = {std::move(x)},
              .peer = from,
              .what = std::string(what)});
}

Handle Communicator::Barrier() { return Run({.kind = CollectiveKind::kBarrier}); }

Handle Communicator::Run(Collective collective) {
  Check(collective);
  if (size() == 1) {
    if (collective.kind == CollectiveKind::kAllToAll)
      collective.receive[0].copy_(collective.tensors[0]);
    return Handle();
  }
  if (!IsTransfer(collective.kind)) ++sequence_;
  const int64_t bytes = BytesOf(collective.tensors) + BytesOf(collective.receive);
  const bool may_be_empty = collective.kind == CollectiveKind::kBarrier ||
                            collective.kind == CollectiveKind::kAllToAll;  // here, not elsewhere
  if (bytes == 0 && !may_be_empty) return Handle();
  collectives_.fetch_add(1, std::memory_order_relaxed);
  const uint64_t record = recorder_->Start(name_, NameOf(collective.kind), collective.what, bytes);
  return Start(std::move(collective), record);
}

void Communicator::Check(const Collective& collective) const {
  for (const auto* list : {&collective.tensors, &collective.receive}) {
    for (const at::Tensor& x : *list) {
      // A group of one moves nothing, so any device will do.
      const bool any = size() == 1 && x.defined();
      CheckCollectiveTensor(x, any ? x.device().type() : device_type());
    }
  }
  const std::string_view name = NameOf(collective.kind);
  const int peer = collective.peer;
  TORCH_CHECK(peer >= 0 && peer < size(), "a ", name, " with rank ", peer, " of a group of ",
              size());
  if (IsTransfer(collective.kind)) {
    const int distance = std::abs(peer - rank());
    TORCH_CHECK(distance != 0, "a ", name, " with itself");
    TORCH_CHECK(distance == 1 || distance == size() - 1, "a ", name, " of rank ", rank(),
                " with rank ", peer, " of ", size(), ", which is no neighbour");
  }
  if (collective.kind == CollectiveKind::kAllGather ||
      collective.kind == CollectiveKind::kReduceScatter) {
    for (const at::Tensor& x : collective.tensors) {
      TORCH_CHECK(x.numel() % size() == 0, "an ", name, " of ", x.numel(),
                  " elements, which are not ", size(), " equal parts");
    }
  }
  if (collective.kind != CollectiveKind::kAllToAll) return;
  const auto ranks = static_cast<size_t>(size()), self = static_cast<size_t>(rank());
  TORCH_CHECK(collective.tensors.size() == ranks && collective.receive.size() == ranks,
              "an all-to-all takes one tensor for each of ", ranks, " ranks");
  TORCH_CHECK(collective.tensors[self].numel() == collective.receive[self].numel(),
              "an all-to-all's own parts differ");
  for (size_t r = 0; r < ranks; ++r) {
    TORCH_CHECK(collective.tensors[r].scalar_type() == collective.tensors[0].scalar_type() &&
                    collective.receive[r].scalar_type() == collective.tensors[0].scalar_type(),
                "an all-to-all of several dtypes");
  }
}

std::unique_ptr<Communicator> Communicator::Split(int color, int key, std::string_view name) {
  TORCH_CHECK(color >= 0, "split with color ", color, ": colors start at 0");
  return StartSplit(color, key, std::string(name));
}

absl::Status AgreeOnStatus(Communicator& comm, const absl::Status& local) {
  if (comm.size() == 1) return local;
  return CatchTorch([&] {
    // The maximum of size − rank over failing ranks tells the lowest of them; 0: nobody failed.
    at::Tensor vote = at::zeros({1}, at::kLong);
    auto* value = vote.mutable_data_ptr<int64_t>();
    *value = local.ok() ? 0 : comm.size() - comm.rank();
    comm.AllReduce(vote, ReduceOp::kMax, "status").Wait();
    if (*value == 0) return absl::OkStatus();
    return ShareError(comm, comm.size() - static_cast<int>(*value), local);
  });
}

}  // namespace osler
