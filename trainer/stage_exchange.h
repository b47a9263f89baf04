// What travels between the stages of a pipeline: activations forward, their gradients back.
//
// Every rank knows the schedules of its neighbours, so it knows what comes from whom, in which
// order and how large; nothing but tensors is sent. A receive is under way one action before its
// tensor is needed, and sends go on by themselves. Of one pass; not thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "parallel/communicator.h"
#include "trainer/pipeline_schedule.h"

namespace osler {

// Where an action's result is needed.
struct Delivery {
  int rank = 0;
  PipelineAction action;
};
// nullopt: nowhere. An activation goes to the next virtual stage; a gradient to the one before if
// that has a block from `lowest` on, the first block with anything to train.
std::optional<Delivery> DeliveryOf(const StagePlan& plan, int rank, const PipelineAction& action,
                                   int64_t lowest);

class StageExchange {
 public:
  using Schedules = std::function<std::vector<PipelineAction>(int rank)>;
  // An uninitialised tensor of the shape of a micro-batch's activations.
  using Buffer = std::function<at::Tensor(int64_t micro_batch)>;
  // The communicator must outlive it.
  StageExchange(Communicator& pipeline, const StagePlan& plan, int64_t lowest,
                const Schedules& schedule_of, Buffer buffer);

  // Begins to receive what `action` needs, and what its sender sends before that.
  void Expect(const PipelineAction& action);
  // Waits for what `action` needs; undefined when it needs nothing from another rank.
  at::Tensor Receive(const PipelineAction& action);
  // Sends an action's result to where it is needed, if anywhere; it must not change afterwards.
  // Waits when too many earlier ones have not been taken.
  void Send(const PipelineAction& action, const at::Tensor& result);
  // Waits until all that was sent is taken.
  void Settle();

 private:
  struct Arrival {
    at::Tensor x;
    Handle handle;
  };
  const StagePlan& plan_;
  Communicator& pipeline_;
  const int64_t lowest_;
  Buffer buffer_;
  std::map<PipelineAction, int> sender_;               // of each action that needs something
  std::map<int, std::deque<PipelineAction>> to_come_;  // by sender, in its order
  std::map<PipelineAction, Arrival> arrivals_;         // under way
  std::deque<Handle> sent_;
};

}  // namespace osler
