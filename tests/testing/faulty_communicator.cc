#include "tests/testing/faulty_communicator.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace osler::testing {
namespace {

class FaultyCommunicator : public Communicator {
 public:
  FaultyCommunicator(Communicator& inner, std::unique_ptr<Communicator> owned, std::string path,
                     Fault fault)
      : Communicator(inner.name(), std::make_shared<FlightRecorder>()),
        owned_(std::move(owned)),
        inner_(inner),
        path_(std::move(path)),
        fault_(std::move(fault)) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  std::string backend() const override { return inner_.backend(); }
  void Abandon() override { inner_.Abandon(); }
  void Abort(const std::string& reason) override { inner_.Abort(reason); }
  void ThrowIfFailed() const override { inner_.ThrowIfFailed(); }
  void PrepareTransfers() override { inner_.PrepareTransfers(); }

 protected:
  Handle Start(Collective collective, uint64_t record) override {
    recorder().Finish(record);
    return fault_(inner_, path_, std::move(collective));
  }
  std::unique_ptr<Communicator> StartSplit(int color, int key, std::string name) override {
    std::unique_ptr<Communicator> group = inner_.Split(color, key, name);
    Communicator& inner = *group;
    return std::make_unique<FaultyCommunicator>(
        inner, std::move(group), path_.empty() ? name : absl::StrCat(path_, "/", name), fault_);
  }
  int64_t bytes_sent() const override { return inner_.traffic().bytes_sent; }

 private:
  const std::unique_ptr<Communicator> owned_;  // null for the outermost
  Communicator& inner_;
  const std::string path_;
  const Fault fault_;
};

class AfterwardsWork : public Work {
 public:
  AfterwardsWork(Handle handle, std::function<void()> then)
      : handle_(std::move(handle)), then_(std::move(then)) {}
  void Wait() override {
    handle_.Wait();
    if (const auto then = std::exchange(then_, nullptr); then != nullptr) then();
  }
  bool Done() const override { return handle_.Done(); }

 private:
  Handle handle_;
  std::function<void()> then_;
};

}  // namespace

std::unique_ptr<Communicator> MakeFaultyCommunicator(Communicator& inner, Fault fault) {
  return std::make_unique<FaultyCommunicator>(inner, nullptr, "", std::move(fault));
}

Handle Afterwards(Handle handle, std::function<void()> then) {
  return Handle(std::make_shared<AfterwardsWork>(std::move(handle), std::move(then)));
}

}  // namespace osler::testing
