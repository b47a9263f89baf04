#include "parallel/message_communicator.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <exception>
#include <numeric>
#include <string>
#include <utility>

#include "base/check.h"
#include "parallel/message_operations.h"

namespace osler {
namespace {

class MessageCommunicator : public Communicator {
 public:
  MessageCommunicator(std::shared_ptr<Engine> engine, std::shared_ptr<Group> group)
      : Communicator(group->name, group->member->recorder),
        engine_(std::move(engine)),
        group_(std::move(group)) {}
  ~MessageCommunicator() override {
    // An orderly end would wait for ranks that wait for this one.
    if (std::uncaught_exceptions() > 0) engine_->Abandon(*group_->member);
    engine_->Close(*group_);
  }

  int rank() const override { return group_->rank; }
  int size() const override { return static_cast<int>(group_->ranks.size()); }
  std::string backend() const override { return group_->member->transport->name(); }
  void Abandon() override {
    engine_->Abandon(*group_->member);
    engine_->Close(*group_);
  }
  void Abort(const std::string& reason) override { engine_->Abort(*group_->member, reason); }

 protected:
  Handle Start(Collective collective, uint64_t record) override {
    auto operation =
        MakeMessageOperation(std::move(collective), {rank(), size(), sequence()}, *engine_, record);
    engine_->Start(group_, operation);
    return Handle(std::move(operation));
  }

  int64_t bytes_sent() const override { return group_->bytes_sent.load(std::memory_order_relaxed); }

  std::unique_ptr<Communicator> StartSplit(int color, int key, std::string name) override {
    // Everyone's color, key and next free channel.
    at::Tensor rows = at::zeros({size() * 3}, at::kLong);
    const auto* values = rows.const_data_ptr<int64_t>();
    auto* own = rows.mutable_data_ptr<int64_t>() + rank() * 3;
    own[0] = color;
    own[1] = key;
    own[2] = group_->member->next_channel;
    AllGather({rows}, "split").Wait();
    std::vector<std::pair<int64_t, int>> members;  // (key, rank here)
    int64_t channel = 0;
    for (int r = 0; r < size(); ++r) {
      channel = std::max(channel, values[r * 3 + 2]);
      if (values[r * 3] == color) members.emplace_back(values[r * 3 + 1], r);
    }
    std::sort(members.begin(), members.end());
    std::vector<int> ranks;
    int self = 0;
    for (const auto& [_, r] : members) {
      if (r == rank()) self = static_cast<int>(ranks.size());
      ranks.push_back(group_->ranks[static_cast<size_t>(r)]);
    }
    return std::make_unique<MessageCommunicator>(
        engine_, engine_->Open(*group_->member, std::move(ranks), self,
                               static_cast<uint32_t>(channel), std::move(name)));
  }

 private:
  const std::shared_ptr<Engine> engine_;
  const std::shared_ptr<Group> group_;
};

}  // namespace

std::unique_ptr<Communicator> MakeMessageWorld(std::unique_ptr<Transport> transport,
                                               const CommunicatorOptions& options) {
  std::vector<std::unique_ptr<Transport>> one;
  one.push_back(std::move(transport));
  return std::move(MakeMessageWorlds(std::move(one), options)[0]);
}

std::vector<std::unique_ptr<Communicator>> MakeMessageWorlds(
    std::vector<std::unique_ptr<Transport>> transports, const CommunicatorOptions& options) {
  OSLER_CHECK(transports.size() == 1 || !transports.front()->polled());
  std::vector<int> ranks(static_cast<size_t>(transports.front()->size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  const size_t members = transports.size();
  auto engine = std::make_shared<Engine>(std::move(transports), options);
  std::vector<std::unique_ptr<Communicator>> worlds;
  for (size_t i = 0; i < members; ++i) {
    Member& member = engine->member(i);
    worlds.push_back(std::make_unique<MessageCommunicator>(
        engine, engine->Open(member, ranks, member.transport->rank(), 0, "world")));
  }
  return worlds;
}

}  // namespace osler
