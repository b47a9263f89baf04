#include "parallel/nccl/nccl_world.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace osler {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLook{5};

}  // namespace

NcclWorld::NcclWorld(std::shared_ptr<const NcclLibrary> library, std::shared_ptr<Communicator> cpu,
                     int device, NcclOptions options)
    : library_(std::move(library)),
      cpu_(std::move(cpu)),
      device_(device),
      options_(std::move(options)),
      thread_([this] { Run(); }) {}

NcclWorld::~NcclWorld() {
  {
    const std::lock_guard lock(state_mutex_);
    stop_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void NcclWorld::Enter(const std::shared_ptr<NcclComm>& comm) { comms_.push_back(comm); }

void NcclWorld::Leave(const NcclComm& comm) {
  std::erase_if(comms_, [&](const auto& one) { return one.get() == &comm; });
  const std::lock_guard lock(state_mutex_);
  launches_ -= static_cast<int64_t>(comm.launches.size());
}

void NcclWorld::Watch(NcclComm& comm, NcclLaunch launch) {
  comm.launches.push_back(std::move(launch));
  const std::lock_guard lock(state_mutex_);
  if (launches_++ == 0) changed_.notify_all();
}

void NcclWorld::Fail(const std::string& why) {
  const std::lock_guard lock(state_mutex_);
  if (failure_.empty()) failure_ = why;
  changed_.notify_all();
}

void NcclWorld::Throw(const std::string& why) {
  Fail(why);
  C10_THROW_ERROR(DistError, Hear());
}

void NcclWorld::ThrowIfFailed() {
  if (failed()) C10_THROW_ERROR(DistError, Hear());
}

bool NcclWorld::failed() const {
  const std::lock_guard lock(state_mutex_);
  return !failure_.empty();
}

std::string NcclWorld::Hear() {
  const std::lock_guard lock(state_mutex_);
  heard_ = true;
  changed_.notify_all();
  return failure_;
}

std::string NcclWorld::NameOf(const NcclComm& comm, const std::string& what) const {
  return absl::StrCat("rank ", cpu_->rank(), "'s ", what, " in group ", comm.name);
}

std::string NcclWorld::Overdue(const NcclComm& comm, const std::string& what) const {
  return absl::StrCat(NameOf(comm, what), " did not end within ", options_.timeout.count(),
                      " ms over NCCL; a rank may hang, or be in another collective: see the other "
                      "ranks' logs");
}

std::string NcclWorld::Broken(const NcclComm& comm, const std::string& what,
                              ncclResult_t result) const {
  return absl::StrCat(NameOf(comm, what),
                      " failed: NCCL says: ", library_->ncclGetErrorString(result),
                      "; a rank may have died: see the other ranks' logs, and NCCL_DEBUG=INFO");
}

std::string NcclWorld::Broken(const NcclComm& comm, const std::string& what,
                              cudaError_t result) const {
  return absl::StrCat(NameOf(comm, what),
                      " failed: CUDA says: ", library_->cudaGetErrorString(result));
}

void NcclWorld::Run() {
  library_->cudaSetDevice(device_);
  while (WaitForWork()) {
    const std::lock_guard lock(nccl_mutex_);
    for (const auto& comm : comms_) Look(*comm);
  }
  if (failed()) GiveUp();
}

bool NcclWorld::WaitForWork() {
  const auto over = [&] { return stop_ || !failure_.empty(); };
  std::unique_lock lock(state_mutex_);
  changed_.wait(lock, [&] { return over() || launches_ > 0; });
  return !changed_.wait_for(lock, kLook, over);
}

void NcclWorld::Look(NcclComm& comm) {
  while (!comm.launches.empty()) {
    const NcclLaunch& first = comm.launches.front();
    const cudaError_t state = first.end->Query();
    if (state == cudaErrorNotReady) break;
    if (state != cudaSuccess) return Fail(Broken(comm, first.what, state));
    if (first.record > 0) cpu_->recorder().Finish(first.record);
    comm.launches.pop_front();
    comm.since.reset();
    const std::lock_guard lock(state_mutex_);
    --launches_;
  }
  if (comm.launches.empty() || comm.comm == nullptr) return;
  const NcclLaunch& first = comm.launches.front();
  ncclResult_t state = ncclSuccess;
  const ncclResult_t asked = library_->ncclCommGetAsyncError(comm.comm, &state);
  for (const ncclResult_t result : {asked, state}) {
    if (result == ncclSuccess || result == ncclInProgress) continue;
    return Fail(Broken(comm, first.what, result));
  }
  const Clock::time_point now = Clock::now();
  if (!comm.since.has_value()) {
    if (first.begin->Query() == cudaSuccess) comm.since = now;
  } else if (now >= *comm.since + options_.timeout) {
    Fail(Overdue(comm, first.what));
  }
}

void NcclWorld::GiveUp() {
  std::vector<ncclComm_t> comms;
  {
    const std::lock_guard lock(nccl_mutex_);
    for (const auto& comm : comms_) {
      if (comm->comm != nullptr) comms.push_back(std::exchange(comm->comm, nullptr));
    }
  }
  std::unique_lock lock(state_mutex_);
  const std::string why = failure_;
  lock.unlock();
  // Who was held by the device hears of the failure when these have ended, and not before.
  cpu_->Abort(why);
  // What hangs on the device may hold up the call that ends it: nobody waits for these.
  std::thread([library = library_, comms = std::move(comms)] {
    for (ncclComm_t comm : comms) library->ncclCommAbort(comm);
  }).detach();
  lock.lock();
  const auto over = [&] { return stop_ || heard_; };
  if (changed_.wait_for(lock, options_.grace, over) || options_.stuck == nullptr) return;
  lock.unlock();
  options_.stuck(DeviceError(why));
}

}  // namespace osler
