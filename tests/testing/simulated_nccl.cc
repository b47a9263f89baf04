#include "tests/testing/simulated_nccl.h"

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "parallel/nccl/nccl_library.h"
#include "parallel/reduce.h"
#include "tests/testing/simulated_cuda.h"

namespace osler::testing {
namespace {

NcclSimulation* simulation = nullptr;

struct Call {  // of one rank
  enum Kind { kAllReduce, kAllGather, kReduceScatter, kBroadcast, kSend, kReceive };
  Kind kind;
  const void* from;
  void* to;
  size_t count;
  ncclDataType_t type;
  ncclRedOp_t op = ncclSum;
  int peer = 0;

  at::ScalarType scalar() const {
    switch (type) {
      case ncclFloat32: return at::kFloat;
      case ncclFloat64: return at::kDouble;
      case ncclBfloat16: return at::kBFloat16;
      default: return at::kLong;
    }
  }
  size_t bytes() const { return count * c10::elementSize(scalar()); }
  bool Agrees(const Call& other) const {
    return kind == other.kind && count == other.count && type == other.type && op == other.op &&
           peer == other.peer;
  }
};

// What the ranks of one unique id share.
struct Clique {
  struct Meeting {  // a collective
    std::map<int, Call> calls;
    bool done = false, broken = false;
  };
  struct Message {
    const void* from;
    size_t bytes;
    bool taken = false;
  };
  using Pair = std::pair<int, int>;  // from, to

  std::mutex mutex;
  std::condition_variable changed;
  int size = 0, joined = 0;
  std::map<int64_t, Meeting> meetings;
  std::map<Pair, std::deque<std::shared_ptr<Message>>> messages;
};

struct Comm {
  std::shared_ptr<Clique> clique;
  int rank = 0;
  int64_t collectives = 0;            // used by its stream only
  std::atomic<int> untaken_calls{0};  // asynchronous calls that have not been taken in
  bool aborted = false;               // guarded by the clique's mutex
};

std::byte* Bytes(const void* memory, size_t offset = 0) {
  return static_cast<std::byte*>(const_cast<void*>(memory)) + offset;
}

void Reduce(const std::map<int, Call>& calls, size_t offset, size_t count,
            const std::vector<void*>& to) {
  const Call& first = calls.begin()->second;
  std::vector<const void*> sources;
  for (const auto& [rank, call] : calls) sources.push_back(Bytes(call.from, offset));
  ReduceInOrder(first.scalar(), first.op == ncclSum ? ReduceOp::kSum : ReduceOp::kMax, sources,
                static_cast<int64_t>(count), to);
}

void Perform(const std::map<int, Call>& calls) {
  const Call& first = calls.begin()->second;
  if (first.kind == Call::kAllReduce) {
    std::vector<void*> to;
    for (const auto& [rank, call] : calls) to.push_back(call.to);
    return Reduce(calls, 0, first.count, to);
  }
  for (const auto& [rank, call] : calls) {
    const auto part = static_cast<size_t>(rank) * call.bytes();
    if (call.kind == Call::kReduceScatter) {
      Reduce(calls, part, call.count, {call.to});
    } else if (call.kind == Call::kBroadcast) {
      std::memmove(call.to, calls.at(call.peer).from, call.bytes());
    } else {
      for (const auto& [other, receiver] : calls)
        std::memmove(Bytes(receiver.to, part), call.from, call.bytes());
    }
  }
}

// In the stream's thread.
void Meet(Comm& comm, const Call& call) {
  Clique& clique = *comm.clique;
  std::unique_lock lock(clique.mutex);
  Clique::Meeting& meeting = clique.meetings[comm.collectives++];
  if (!meeting.calls.empty() && !call.Agrees(meeting.calls.begin()->second)) meeting.broken = true;
  meeting.calls.emplace(comm.rank, call);
  if (static_cast<int>(meeting.calls.size()) == clique.size && !meeting.broken) {
    Perform(meeting.calls);
    meeting.done = true;
    clique.changed.notify_all();
  }
  clique.changed.wait(lock, [&] { return meeting.done || comm.aborted; });
  if (!meeting.done) meeting.broken = true;  // this rank's memory may go
}

void Transfer(Comm& comm, const std::vector<Call>& calls) {
  Clique& clique = *comm.clique;
  std::unique_lock lock(clique.mutex);
  std::vector<std::shared_ptr<Clique::Message>> sent;
  for (const Call& call : calls) {
    if (call.kind != Call::kSend) continue;
    sent.push_back(std::make_shared<Clique::Message>(Clique::Message{call.from, call.bytes()}));
    clique.messages[{comm.rank, call.peer}].push_back(sent.back());
  }
  clique.changed.notify_all();
  for (const Call& call : calls) {
    if (call.kind != Call::kReceive) continue;
    auto& queue = clique.messages[{call.peer, comm.rank}];
    clique.changed.wait(lock, [&] { return !queue.empty() || comm.aborted; });
    if (comm.aborted) break;
    std::memcpy(call.to, queue.front()->from, std::min(call.bytes(), queue.front()->bytes));
    queue.front()->taken = true;
    queue.pop_front();
    clique.changed.notify_all();
  }
  for (const auto& message : sent)
    clique.changed.wait(lock, [&] { return message->taken || comm.aborted; });
  // After an abort: this rank's memory may go.
  for (auto& [pair, queue] : clique.messages) {
    if (pair.first == comm.rank && comm.aborted) queue.clear();
  }
}

// Calls between ncclGroupStart and ncclGroupEnd, of this thread.
struct Queued {
  std::shared_ptr<Comm> comm;
  cudaStream_t stream;
  Call call;
};
thread_local std::vector<Queued> queued;

ncclResult_t Add(ncclComm_t comm, cudaStream_t stream, const Call& call) {
  queued.push_back({Get<Comm>(comm), stream, call});
  return ncclSuccess;
}
ncclResult_t GroupStart() { return ncclSuccess; }
ncclResult_t GroupEnd() {
  std::vector<Queued> calls = std::exchange(queued, {});
  std::vector<Call> transfers;
  for (const auto& [comm, stream, call] : calls) {
    if (call.kind == Call::kSend || call.kind == Call::kReceive) {
      transfers.push_back(call);
    } else {
      PushTo(stream, [comm = comm, call = call] { Meet(*comm, call); });
    }
  }
  if (!transfers.empty()) {
    PushTo(calls.front().stream,
           [comm = calls.front().comm, transfers] { Transfer(*comm, transfers); });
  }
  if (!calls.empty()) ++calls.front().comm->untaken_calls;
  return ncclInProgress;
}

ncclResult_t AllReduce(const void* from, void* to, size_t n, ncclDataType_t type, ncclRedOp_t op,
                       ncclComm_t comm, cudaStream_t stream) {
  return Add(comm, stream, {Call::kAllReduce, from, to, n, type, op});
}
ncclResult_t AllGather(const void* from, void* to, size_t n, ncclDataType_t type, ncclComm_t comm,
                       cudaStream_t stream) {
  return Add(comm, stream, {Call::kAllGather, from, to, n, type});
}
ncclResult_t ReduceScatter(const void* from, void* to, size_t n, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return Add(comm, stream, {Call::kReduceScatter, from, to, n, type, op});
}
ncclResult_t Broadcast(const void* from, void* to, size_t n, ncclDataType_t type, int root,
                       ncclComm_t comm, cudaStream_t stream) {
  return Add(comm, stream, {Call::kBroadcast, from, to, n, type, ncclSum, root});
}
ncclResult_t Send(const void* from, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                  cudaStream_t stream) {
  return Add(comm, stream, {Call::kSend, from, nullptr, n, type, ncclSum, peer});
}
ncclResult_t Receive(void* to, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                     cudaStream_t stream) {
  return Add(comm, stream, {Call::kReceive, nullptr, to, n, type, ncclSum, peer});
}

ncclResult_t GetUniqueId(ncclUniqueId* id) {
  static std::atomic<int64_t> last{0};
  const int64_t number = ++last;
  std::memcpy(id->internal, &number, sizeof number);
  return ncclSuccess;
}
ncclResult_t CommInit(ncclComm_t* handle, int size, ncclUniqueId id, int rank, ncclConfig_t*) {
  static std::mutex mutex;
  static std::map<int64_t, std::weak_ptr<Clique>> cliques;
  int64_t number = 0;
  std::memcpy(&number, id.internal, sizeof number);
  const auto comm = std::make_shared<Comm>();
  comm->rank = rank;
  {
    const std::lock_guard lock(mutex);
    comm->clique = cliques[number].lock();
    if (comm->clique == nullptr) cliques[number] = comm->clique = std::make_shared<Clique>();
  }
  const std::lock_guard lock(comm->clique->mutex);
  comm->clique->size = size;
  ++comm->clique->joined;
  *handle = MakeHandle<ncclComm_t>(comm);
  return ncclInProgress;
}
ncclResult_t GetAsyncError(ncclComm_t handle, ncclResult_t* state) {
  Comm& comm = *Get<Comm>(handle);
  const std::lock_guard lock(comm.clique->mutex);
  *state = ncclSuccess;
  if (comm.clique->joined < comm.clique->size) *state = ncclInProgress;
  if (comm.untaken_calls > 0) {
    --comm.untaken_calls;
    *state = ncclInProgress;
  }
  if (simulation->reports_error) *state = ncclRemoteError;
  return ncclSuccess;
}
ncclResult_t CommFinalize(ncclComm_t handle) {
  ++Get<Comm>(handle)->untaken_calls;
  return ncclInProgress;
}
ncclResult_t CommDestroy(ncclComm_t handle) {
  delete &Get<Comm>(handle);
  return ncclSuccess;
}
ncclResult_t CommAbort(ncclComm_t handle) {
  if (simulation->abort_is_heard) {
    Comm& comm = *Get<Comm>(handle);
    const std::lock_guard lock(comm.clique->mutex);
    comm.aborted = true;
    comm.clique->changed.notify_all();
  }
  return CommDestroy(handle);
}
ncclResult_t GetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

}  // namespace

std::shared_ptr<const NcclLibrary> SimulateNccl(NcclSimulation& settings) {
  simulation = &settings;
  const auto library = std::make_shared<NcclLibrary>();
  library->memory = at::kCPU;
  library->ncclGetVersion = GetVersion;
  library->ncclGetUniqueId = GetUniqueId;
  library->ncclCommInitRankConfig = CommInit;
  library->ncclCommGetAsyncError = GetAsyncError;
  library->ncclCommFinalize = CommFinalize;
  library->ncclCommDestroy = CommDestroy;
  library->ncclCommAbort = CommAbort;
  library->ncclGroupStart = GroupStart;
  library->ncclGroupEnd = GroupEnd;
  library->ncclAllReduce = AllReduce;
  library->ncclAllGather = AllGather;
  library->ncclReduceScatter = ReduceScatter;
  library->ncclBroadcast = Broadcast;
  library->ncclSend = Send;
  library->ncclRecv = Receive;
  library->ncclGetErrorString = [](ncclResult_t result) -> const char* {
    return result == ncclRemoteError ? "remote process exited" : "simulated";
  };
  SimulateCuda(settings.default_stream_waits, *library);
  return library;
}

}  // namespace osler::testing
