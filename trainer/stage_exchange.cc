#include "trainer/stage_exchange.h"

#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace osler {
namespace {

using Kind = PipelineAction::Kind;

std::string Describe(const PipelineAction& action) {
  return absl::StrCat(action.kind == Kind::kForward ? "activations" : "gradients",
                      " of micro-batch ", action.micro_batch, " for chunk ", action.chunk);
}

}  // namespace

std::optional<Delivery> DeliveryOf(const StagePlan& plan, int rank, const PipelineAction& action,
                                   int64_t lowest) {
  const int stages = plan.shape.stages;
  int stage = plan.VirtualStage(rank, action.chunk);
  if (action.kind == Kind::kForward) {
    if (++stage == plan.shape.virtual_stages()) return std::nullopt;
  } else {
    if (plan.BlocksOf(stage).begin <= lowest) return std::nullopt;
    --stage;
  }
  return Delivery{stage % stages, {action.kind, action.micro_batch, stage / stages}};
}

StageExchange::StageExchange(Communicator& pipeline, const StagePlan& plan, int64_t lowest,
                             const Schedules& schedule_of, Buffer buffer)
    : plan_(plan), pipeline_(pipeline), lowest_(lowest), buffer_(std::move(buffer)) {
  const int rank = pipeline.rank(), stages = plan.shape.stages;
  if (stages == 1) return;
  for (const int peer : std::set{(rank + 1) % stages, (rank + stages - 1) % stages}) {
    for (const PipelineAction& action : schedule_of(peer)) {
      const auto delivery = DeliveryOf(plan, peer, action, lowest);
      if (!delivery.has_value() || delivery->rank != rank) continue;
      sender_[delivery->action] = peer;
      to_come_[peer].push_back(delivery->action);
    }
  }
}

void StageExchange::Expect(const PipelineAction& action) {
  const auto sender = sender_.find(action);
  if (sender == sender_.end()) return;
  std::deque<PipelineAction>& queue = to_come_[sender->second];
  while (!arrivals_.contains(action)) {
    const PipelineAction next = queue.front();
    queue.pop_front();
    at::Tensor x = buffer_(next.micro_batch);
    Handle handle = pipeline_.Receive(x, sender->second, Describe(next));
    arrivals_.emplace(next, Arrival{std::move(x), std::move(handle)});
  }
}

at::Tensor StageExchange::Receive(const PipelineAction& action) {
  if (!sender_.contains(action)) return {};
  auto arrival = arrivals_.extract(action);
  arrival.mapped().handle.Wait();
  return std::move(arrival.mapped().x);
}

// A rank that has nothing to take back could run ahead of the others without end. In the schedule
// no more of its results than twice MaxInFlight wait to be taken at any time (activations at most
// as many as are not back yet, gradients at most as many as the stage before has in flight), so
// waiting for the oldest beyond that never closes a circle.
void StageExchange::Send(const PipelineAction& action, const at::Tensor& result) {
  const auto delivery = DeliveryOf(plan_, pipeline_.rank(), action, lowest_);
  if (!delivery.has_value()) return;
  sent_.push_back(pipeline_.Send(result.contiguous(), delivery->rank, Describe(delivery->action)));
  while (!sent_.empty() && sent_.front().Done()) sent_.pop_front();
  while (static_cast<int64_t>(sent_.size()) > 2 * MaxInFlight(plan_.shape, 0)) {
    sent_.front().Wait();
    sent_.pop_front();
  }
}

void StageExchange::Settle() {
  for (Handle& handle : sent_) handle.Wait();
  sent_.clear();
}

}  // namespace osler
