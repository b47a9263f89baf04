#include "parallel/communicator.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <cstring>
#include <string>

#include "base/errors.h"
#include "base/torch_status.h"
#include "parallel/reduce.h"

namespace osler {
namespace {

class SingleCommunicator : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void AllReduce(at::Tensor& x, ReduceOp) override { CheckCollectiveTensor(x); }
  void Broadcast(at::Tensor& x, int root) override {
    CheckCollectiveTensor(x);
    TORCH_CHECK(root == 0, "broadcast from rank ", root, " of a group of 1");
  }
  void Barrier() override {}
  std::unique_ptr<Communicator> Split(int, int) override { return MakeSingleCommunicator(); }
  std::string backend() const override { return "single"; }
};

constexpr int64_t kWord = sizeof(int64_t);

// The error of rank `root` on every rank; `local` is read there only. Text travels in int64 words,
// since collectives know no bytes: first {exit code, length}, then the message.
absl::Status ShareError(Communicator& comm, int root, const absl::Status& local) {
  at::Tensor head = at::zeros({2}, at::kLong);
  auto* fields = head.mutable_data_ptr<int64_t>();
  const std::string message(local.message());
  if (comm.rank() == root) {
    fields[0] = static_cast<int64_t>(ExitCodeOf(local));
    fields[1] = static_cast<int64_t>(message.size());
  }
  comm.Broadcast(head, root);
  const int64_t length = fields[1];
  at::Tensor words = at::zeros({(length + kWord - 1) / kWord}, at::kLong);
  char* text = static_cast<char*>(words.mutable_data_ptr());
  if (comm.rank() == root && length > 0) std::memcpy(text, message.data(), message.size());
  comm.Broadcast(words, root);
  return Annotate(MakeError(static_cast<ExitCode>(fields[0]), {text, static_cast<size_t>(length)}),
                  absl::StrCat("rank ", root));
}

}  // namespace

std::unique_ptr<Communicator> MakeSingleCommunicator() {
  return std::make_unique<SingleCommunicator>();
}

absl::Status AgreeOnStatus(Communicator& comm, const absl::Status& local) {
  if (comm.size() == 1) return local;
  return CatchTorch([&] {
    // The maximum of size − rank over failing ranks tells the lowest of them; 0: nobody failed.
    at::Tensor vote = at::zeros({1}, at::kLong);
    auto* value = vote.mutable_data_ptr<int64_t>();
    *value = local.ok() ? 0 : comm.size() - comm.rank();
    comm.AllReduce(vote, ReduceOp::kMax);
    if (*value == 0) return absl::OkStatus();
    return ShareError(comm, comm.size() - static_cast<int>(*value), local);
  });
}

}  // namespace osler
