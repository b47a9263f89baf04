#include "parallel/mpi/mpi_communicator.h"

// Only the C interface: Open MPI's C++ one would need a further library.
#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "parallel/message_communicator.h"
#include "parallel/transport.h"

namespace osler {
namespace {

std::string ErrorText(int code) {
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  return absl::StrCat("MPI says: ", std::string(text, static_cast<size_t>(length)),
                      "; a rank may have died: see the other ranks' logs");
}

// A channel is a tag: MPI keeps the messages of one tag between two ranks in order.
class MpiTransport : public Transport {
 public:
  // Of a process that has initialised MPI; takes ownership of `comm`, whose error handler is
  // MPI_ERRORS_RETURN.
  explicit MpiTransport(MPI_Comm comm) : comm_(comm) {
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
  }
  ~MpiTransport() override {
    if (abandoned_) return;  // finalising would wait for ranks that wait for this one
    MPI_Comm_free(&comm_);
    MPI_Finalize();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string name() const override { return "mpi"; }
  void Abandon() override { abandoned_ = true; }

  void Send(Transfer& transfer) override {
    MPI_Request request = MPI_REQUEST_NULL;
    const int code = MPI_Isend(transfer.data, static_cast<int>(transfer.bytes), MPI_BYTE,
                               transfer.peer, static_cast<int>(transfer.channel), comm_, &request);
    Await(code, request, {&transfer, false});
  }

  void Receive(Transfer& transfer) override {
    MPI_Request request = MPI_REQUEST_NULL;
    const int code = MPI_Irecv(transfer.data, static_cast<int>(transfer.bytes), MPI_BYTE,
                               transfer.peer, static_cast<int>(transfer.channel), comm_, &request);
    Await(code, request, {&transfer, true});
  }

  void Poll() override {
    if (requests_.empty()) return;
    const auto n = requests_.size();
    finished_.resize(n);
    statuses_.resize(n);
    int count = 0;
    const int code = MPI_Testsome(static_cast<int>(n), requests_.data(), &count, finished_.data(),
                                  statuses_.data());
    if (count == MPI_UNDEFINED || count == 0) return;
    for (int i = 0; i < count; ++i) {
      const auto at = static_cast<size_t>(finished_[static_cast<size_t>(i)]);
      MPI_Status& status = statuses_[static_cast<size_t>(i)];
      Finish(pending_[at], code == MPI_ERR_IN_STATUS ? status.MPI_ERROR : code, status);
      pending_[at].transfer = nullptr;
    }
    // Those that are left keep their order.
    size_t kept = 0;
    for (size_t at = 0; at < n; ++at) {
      if (pending_[at].transfer == nullptr) continue;
      pending_[kept] = pending_[at];
      requests_[kept++] = requests_[at];
    }
    pending_.resize(kept);
    requests_.resize(kept);
  }

 private:
  struct Pending {
    Transfer* transfer;
    bool receive;
  };

  void Await(int code, MPI_Request request, Pending pending) {
    if (code != MPI_SUCCESS) return pending.transfer->Fail(ErrorText(code));
    requests_.push_back(request);
    pending_.push_back(pending);
  }

  static void Finish(const Pending& pending, int code, MPI_Status& status) {
    if (code != MPI_SUCCESS) return pending.transfer->Fail(ErrorText(code));
    if (pending.receive) {
      int bytes = 0;
      MPI_Get_count(&status, MPI_BYTE, &bytes);
      pending.transfer->bytes = static_cast<size_t>(bytes);
    }
    pending.transfer->Done();
  }

  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  bool abandoned_ = false;
  std::vector<MPI_Request> requests_;  // and whose they are
  std::vector<Pending> pending_;
  std::vector<int> finished_;  // room for MPI_Testsome
  std::vector<MPI_Status> statuses_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> ConnectMpi(const CommunicatorOptions& options) {
  int initialised = 0;
  MPI_Initialized(&initialised);
  if (initialised != 0)
    return DeviceError("MPI was already initialised in this process: connect once");
  int provided = MPI_THREAD_SINGLE;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS) {
    return DeviceError("MPI_Init_thread failed");
  }
  if (provided < MPI_THREAD_SERIALIZED) {
    MPI_Finalize();
    return DeviceError("this MPI does not support threads (MPI_THREAD_SERIALIZED)");
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm world = MPI_COMM_NULL;  // inherits the error handler
  if (MPI_Comm_dup(MPI_COMM_WORLD, &world) != MPI_SUCCESS)
    return DeviceError("MPI_Comm_dup of the world failed");
  return MakeMessageWorld(std::make_unique<MpiTransport>(world), options);
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
