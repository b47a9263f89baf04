#include "parallel/mpi/mpi_communicator.h"

#include <c10/util/Exception.h>
// Only the C interface: Open MPI's C++ one would need a further library.
#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <algorithm>
#include <exception>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/torch_status.h"
#include "parallel/reduce.h"

namespace osler {
namespace {

// Large buffers travel in pieces, so that scratch memory stays small and counts fit MPI's int.
constexpr int64_t kPieceBytes = int64_t{2} << 20;
constexpr int64_t kBroadcastBytes = int64_t{1} << 30;
// Up to this many bytes from all ranks together, one all-gather is quicker than the two steps of a
// large reduction.
constexpr int64_t kSmallBytes = int64_t{64} << 10;

// MPI's lifetime in this process, shared by all communicators.
class MpiRuntime {
 public:
  ~MpiRuntime() {
    if (!abandoned_) MPI_Finalize();
  }
  void Abandon() { abandoned_ = true; }
  bool abandoned() const { return abandoned_; }

 private:
  bool abandoned_ = false;
};

class MpiCommunicator : public Communicator {
 public:
  // Takes ownership of `comm`, whose error handler is MPI_ERRORS_RETURN.
  MpiCommunicator(std::shared_ptr<MpiRuntime> runtime, MPI_Comm comm)
      : runtime_(std::move(runtime)), comm_(comm) {
    Check(MPI_Comm_rank(comm_, &rank_), "rank query");
    Check(MPI_Comm_size(comm_, &size_), "size query");
  }
  ~MpiCommunicator() override {
    if (std::uncaught_exceptions() > 0)
      Abandon();  // finalising would wait for ranks that wait for this one
    if (!runtime_->abandoned()) MPI_Comm_free(&comm_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string backend() const override { return "mpi"; }
  void Abandon() override { runtime_->Abandon(); }

  void AllReduce(at::Tensor& x, ReduceOp op) override {
    CheckCollectiveTensor(x);
    if (size_ == 1 || x.numel() == 0) return;
    char* data = static_cast<char*>(x.mutable_data_ptr());
    const int64_t element = static_cast<int64_t>(x.element_size());
    if (x.numel() * element * size_ <= kSmallBytes) {
      AllReduceSmall(data, x.numel(), x.scalar_type(), element, op);
      return;
    }
    const int64_t piece = kPieceBytes / element;
    for (int64_t begin = 0; begin < x.numel(); begin += piece) {
      AllReducePiece(data + begin * element, std::min(piece, x.numel() - begin), x.scalar_type(),
                     element, op);
    }
  }

  void Broadcast(at::Tensor& x, int root) override {
    CheckCollectiveTensor(x);
    TORCH_CHECK(root >= 0 && root < size_, "broadcast from rank ", root, " of a group of ", size_);
    if (size_ == 1) return;
    char* data = static_cast<char*>(x.mutable_data_ptr());
    const auto bytes = static_cast<int64_t>(x.nbytes());
    for (int64_t begin = 0; begin < bytes; begin += kBroadcastBytes) {
      const int count = static_cast<int>(std::min(kBroadcastBytes, bytes - begin));
      Check(MPI_Bcast(data + begin, count, MPI_BYTE, root, comm_), "broadcast");
    }
  }

  void Barrier() override { Check(MPI_Barrier(comm_), "barrier"); }

  std::unique_ptr<Communicator> Split(int color, int key) override {
    TORCH_CHECK(color >= 0, "split with color ", color, ": colors start at 0");
    MPI_Comm split = MPI_COMM_NULL;
    Check(MPI_Comm_split(comm_, color, key, &split), "split");
    return std::make_unique<MpiCommunicator>(runtime_, split);
  }

 private:
  void Check(int code, const char* what) {
    if (code == MPI_SUCCESS) return;
    Abandon();
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    C10_THROW_ERROR(
        DistError,
        absl::StrCat("MPI ", what, " failed on rank ", rank_, " of ", size_, ": ",
                     std::string(text, static_cast<size_t>(length)),
                     "; a rank may have died or called something else: see the other ranks' logs"));
  }

  // MPI leaves the order of a floating-point reduction to the library, so only bytes go through it:
  // everyone gets all inputs and combines them in rank order.
  void AllReduceSmall(char* data, int64_t count, at::ScalarType dtype, int64_t element,
                      ReduceOp op) {
    const int64_t bytes = count * element;
    scratch_.resize(std::max(scratch_.size(), static_cast<size_t>(bytes * size_)));
    const int n = static_cast<int>(bytes);
    Check(MPI_Allgather(data, n, MPI_BYTE, scratch_.data(), n, MPI_BYTE, comm_), "all-gather");
    std::vector<const void*> sources;
    for (int r = 0; r < size_; ++r) sources.push_back(scratch_.data() + r * bytes);
    void* out = data;
    ReduceInOrder(dtype, op, sources, count, absl::MakeConstSpan(&out, 1));
  }

  // Rank r receives everyone's slice r, combines them in rank order and hands the result to all:
  // each rank sends and receives 2 (size − 1) / size of the piece, the least possible.
  void AllReducePiece(char* data, int64_t count, at::ScalarType dtype, int64_t element,
                      ReduceOp op) {
    const auto ranks = static_cast<size_t>(size_);
    std::vector<int> counts(ranks), offsets(ranks), to(ranks), from(ranks, 0),
        from_offsets(ranks, 0);
    for (int r = 0; r < size_; ++r) {
      const Slice slice = SliceOf(count, r, size_);
      counts[static_cast<size_t>(r)] = static_cast<int>(slice.count() * element);
      offsets[static_cast<size_t>(r)] = static_cast<int>(slice.begin * element);
    }
    const auto self = static_cast<size_t>(rank_);
    char* own = data + offsets[self];
    to = counts;
    to[self] = 0;  // this rank's own slice is combined where it lies
    std::vector<const void*> sources(ranks, own);
    scratch_.resize(std::max(scratch_.size(), ranks * static_cast<size_t>(counts[self])));
    for (size_t r = 0; r < ranks; ++r) {
      if (r == self) continue;
      from[r] = counts[self];
      from_offsets[r] = static_cast<int>(r) * counts[self];
      sources[r] = scratch_.data() + from_offsets[r];
    }
    Check(MPI_Alltoallv(data, to.data(), offsets.data(), MPI_BYTE, scratch_.data(), from.data(),
                        from_offsets.data(), MPI_BYTE, comm_),
          "all-to-all");
    void* out = own;
    ReduceInOrder(dtype, op, sources, counts[self] / element, absl::MakeConstSpan(&out, 1));
    Check(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_BYTE, data, counts.data(), offsets.data(), MPI_BYTE,
                         comm_),
          "all-gather");
  }

  std::shared_ptr<MpiRuntime> runtime_;
  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  std::vector<char> scratch_;  // at most a piece
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> ConnectMpi() {
  int initialised = 0;
  MPI_Initialized(&initialised);
  if (initialised != 0)
    return DeviceError("MPI was already initialised in this process: connect once");
  int provided = MPI_THREAD_SINGLE;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
    return DeviceError("MPI_Init_thread failed");
  }
  auto runtime = std::make_shared<MpiRuntime>();
  if (provided < MPI_THREAD_FUNNELED)
    return DeviceError("this MPI does not support threads (MPI_THREAD_FUNNELED)");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm world = MPI_COMM_NULL;  // inherits the error handler
  if (MPI_Comm_dup(MPI_COMM_WORLD, &world) != MPI_SUCCESS) {
    runtime->Abandon();
    return DeviceError("MPI_Comm_dup of the world failed");
  }
  std::unique_ptr<Communicator> connected;
  const absl::Status status = CatchTorch([&] {
    connected = std::make_unique<MpiCommunicator>(std::move(runtime), world);
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return connected;
}

std::string MpiLibraryVersion() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(text, &length);
  std::string version(text, static_cast<size_t>(length));
  version.resize(std::min(version.find_first_of("\n\r"), version.size()));
  return version.substr(0, version.find(", package"));  // Open MPI goes on with how it was built
}

}  // namespace osler
