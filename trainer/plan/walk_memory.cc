#include "trainer/plan/walk_memory.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace osler {
namespace {

using Kind = PipelineAction::Kind;

bool Contains(const std::vector<int64_t>& slots, int64_t slot) {
  return std::find(slots.begin(), slots.end(), slot) != slots.end();
}

// The slot that both ends of the pipeline hold; −1: none.
int64_t TiedSlot(const WalkMemoryParts& parts) {
  const bool tied = Contains(parts.model.blocks.front()->slots(), parts.model.head_slot);
  return tied && parts.stages.shape.stages > 1 ? parts.model.head_slot : -1;
}

}  // namespace

WalkMemory::WalkMemory(const WalkMemoryParts& parts, int stage, const std::vector<int64_t>& present,
                       Ledger& ledger)
    : parts_(parts),
      stage_(stage),
      ledger_(ledger),
      actions_(PipelineSchedule(parts.stages.shape, parts.micro_batches, stage)),
      head_slots_{parts.model.head_slot},
      blocks_(static_cast<int64_t>(parts.model.blocks.size())),
      reduce_(parts.slots, present, parts.layout, parts.batch, TiedSlot(parts), ledger) {
  const auto trains = [&](const auto& block) {
    const auto& slots = block->slots();
    return std::any_of(slots.begin(), slots.end(), [&](int64_t slot) {
      return parts.slots.trained[static_cast<size_t>(slot)];
    });
  };
  const auto& blocks = parts.model.blocks;
  lowest_ = std::find_if(blocks.begin(), blocks.end(), trains) - blocks.begin();
  boundary_ = parts.sizes.blocks.back().output;
  ListVisits();
  for (const Visit& visit : visits_) {
    if (visit.block < blocks_ && Contains(SlotsOf(visit.block), parts.model.head_slot))
      block_holds_head_ = true;
  }
}

StagePlan::Range WalkMemory::BlocksOf(const PipelineAction& action) const {
  return parts_.stages.BlocksOf(parts_.stages.VirtualStage(stage_, action.chunk));
}

bool WalkMemory::IsLastStage(const PipelineAction& action) const {
  return BlocksOf(action).end == blocks_;
}

void WalkMemory::ListVisits() {
  visits_.reserve(actions_.size() * static_cast<size_t>(blocks_ / parts_.stages.shape.stages + 2));
  for (const PipelineAction& action : actions_) {
    const auto [begin, end] = BlocksOf(action);
    if (action.kind == Kind::kForward) {
      for (int64_t b = begin; b < end; ++b) visits_.push_back({b, action.kind});
      if (end == blocks_) visits_.push_back({blocks_, action.kind});
    } else {
      for (int64_t b = end; b-- > std::max(begin, lowest_);) visits_.push_back({b, action.kind});
    }
  }
}

const std::vector<int64_t>& WalkMemory::SlotsOf(int64_t block) const {
  return block == blocks_ ? head_slots_ : parts_.model.blocks[static_cast<size_t>(block)]->slots();
}

std::string WalkMemory::NameOf(int64_t place) const {
  switch (place) {
    case kReduction: return "reduction";
    case kNorm: return "gradient norm";
    case kCheckpoint: return "checkpoint";
  }
  if (place / 2 == blocks_) return "head";
  return absl::StrCat(parts_.model.blocks[static_cast<size_t>(place / 2)]->name(),
                      place % 2 == 0 ? " forward" : " backward");
}

void WalkMemory::Enter() {
  const Visit& visit = visits_[visit_++];
  ledger_.SetPlace(2 * visit.block + (visit.kind == Kind::kForward ? 0 : 1));
  if (!parts_.slots.cuts_parameters) return;
  const int64_t element = parts_.batch.element_bytes();
  int64_t bytes = Sizes(visit.block).flat * element;
  if (visit_ < visits_.size() && visits_[visit_].block != visit.block) {
    for (const int64_t slot : SlotsOf(visits_[visit_].block)) {
      if (!Contains(SlotsOf(visit.block), slot)) bytes += parts_.slots.flat(slot) * element;
    }
  }
  ledger_.Remove(Use::kGathered, ledger_.live(Use::kGathered));
  ledger_.Add(Use::kGathered, bytes);
}

WalkMemory::InFlight& WalkMemory::FlightOf(int64_t micro_batch) {
  const auto [flight, fresh] = in_flight_.try_emplace(micro_batch);
  if (fresh) {
    ledger_.Add(Use::kInputs, parts_.sizes.input_bytes);
    flight->second = {.actions_left = int64_t{2} * parts_.stages.shape.chunks,
                      .kept = std::vector<int64_t>(static_cast<size_t>(blocks_))};
  }
  return flight->second;
}

// From another rank: all but the first virtual stage forward and the last one back.
bool WalkMemory::Receives(const PipelineAction& action) const {
  if (parts_.stages.shape.stages == 1) return false;
  const auto [begin, end] = BlocksOf(action);
  return action.kind == Kind::kForward ? begin > 0 : end < blocks_ && end > lowest_;
}

void WalkMemory::Expect(const PipelineAction& action) {
  if (Receives(action)) ledger_.Add(Use::kMessages, boundary_);
}

// It is on its way until the next one goes.
void WalkMemory::Send(int64_t bytes) {
  ledger_.Remove(Use::kMessages, std::exchange(sent_, bytes));
  ledger_.Add(Use::kMessages, bytes);
}

void WalkMemory::Run() {
  Expect(actions_.front());
  for (size_t i = 0; i < actions_.size(); ++i) {
    if (i + 1 < actions_.size()) Expect(actions_[i + 1]);
    const PipelineAction& action = actions_[i];
    FlightOf(action.micro_batch);
    action.kind == Kind::kForward ? Forward(action) : Backward(action);
    const auto flight = in_flight_.find(action.micro_batch);
    if (--flight->second.actions_left > 0) continue;
    ledger_.Remove(Use::kInputs, parts_.sizes.input_bytes);
    in_flight_.erase(flight);
  }
  Send(0);
  ledger_.SetPlace(kReduction);
  ledger_.Remove(Use::kGathered, ledger_.live(Use::kGathered));
  ledger_.Remove(Use::kReduction, scattering_);
  reduce_.Finish();
}

void WalkMemory::Forward(const PipelineAction& action) {
  InFlight& flight = FlightOf(action.micro_batch);
  Flow x{.use = Use::kMessages, .bytes = Receives(action) ? boundary_ : 0};
  const auto [begin, end] = BlocksOf(action);
  for (int64_t b = begin; b < end; ++b) ForwardBlock(b, flight, x);
  most_kept_ = std::max(most_kept_, flight.all_kept);
  if (IsLastStage(action)) Head(action.micro_batch);
  if (!x.is_kept) ledger_.Remove(x.use, x.bytes);
  if (!IsLastStage(action)) Send(x.is_kept ? 0 : x.bytes);
}

void WalkMemory::ForwardBlock(int64_t block, InFlight& flight, Flow& x) {
  Enter();
  const BlockMemory& memory = Memory(block);
  const bool keeps = block >= lowest_, graph = keeps && !recomputes();
  const bool keeps_memo = keeps && remembers();
  ledger_.Pass(Use::kBlock, graph        ? memory.forward_graph
                            : keeps_memo ? memory.forward_memo
                                         : memory.forward);
  int64_t& kept = flight.kept[static_cast<size_t>(block)];
  if (!x.is_kept) {
    ledger_.Remove(x.use, x.bytes);
    if (keeps) kept += x.bytes;
  }
  if (graph) kept += memory.kept;
  if (keeps_memo) kept += memory.memo;
  flight.all_kept += kept;
  ledger_.Add(Use::kActivations, kept);
  x = {.use = Use::kBlock, .bytes = memory.output, .is_kept = graph};
  if (!graph) ledger_.Add(Use::kBlock, memory.output);
}

void WalkMemory::Head(int64_t micro_batch) {
  Enter();
  const int64_t slot = parts_.model.head_slot;
  if (parts_.slots.trained[static_cast<size_t>(slot)]) Accumulate(slot);
  ledger_.Pass(Use::kLogits, parts_.sizes.head_bytes);
  ledger_.Add(Use::kBlock, boundary_);  // the gradient that goes back
  if (!block_holds_head_) BlockDone(blocks_, micro_batch);
}

void WalkMemory::Backward(const PipelineAction& action) {
  InFlight& flight = FlightOf(action.micro_batch);
  if (Receives(action)) {
    ledger_.Remove(Use::kMessages, boundary_);
    ledger_.Add(Use::kBlock, boundary_);
  }
  const auto [begin, end] = BlocksOf(action);
  for (int64_t b = end; b-- > std::max(begin, lowest_);) {
    BackwardBlock(b, flight);
    BlockDone(b, action.micro_batch);
  }
  if (!Receives(action) && !IsLastStage(action)) return;  // nothing came to go back
  ledger_.Remove(Use::kBlock, boundary_);
  Send(begin > lowest_ ? boundary_ : 0);
}

void WalkMemory::BackwardBlock(int64_t block, InFlight& flight) {
  Enter();
  const BlockMemory& memory = Memory(block);
  if (remembers()) {
    ledger_.Pass(Use::kBlock, std::max(memory.forward_again, memory.backward - memory.memo));
  } else if (recomputes()) {
    ledger_.Pass(Use::kBlock, std::max(memory.forward_graph, memory.backward));
  } else {
    ledger_.Pass(Use::kBlock, memory.backward - memory.kept);
  }
  const int64_t kept = std::exchange(flight.kept[static_cast<size_t>(block)], 0);
  flight.all_kept -= kept;
  ledger_.Remove(Use::kActivations, kept);
}

// A whole sum that lives from now to its scatter.
void WalkMemory::Accumulate(int64_t slot) {
  if (!parts_.slots.cuts_gradients || accumulators_.contains(slot)) return;
  accumulators_[slot] = parts_.slots.flat(slot) * parts_.batch.sum_bytes();
  ledger_.Add(Use::kReduction, accumulators_[slot]);
}

void WalkMemory::BlockDone(int64_t block, int64_t micro_batch) {
  const std::vector<int64_t>& slots = SlotsOf(block);
  if (parts_.slots.cuts_gradients) {
    const bool embeds = Contains(parts_.model.blocks.front()->slots(), slots.front());
    if (embeds) Accumulate(slots.front());
    const int64_t values =
        embeds || block == blocks_ ? 0 : Sizes(block).trained_flat * parts_.batch.element_bytes();
    ledger_.Pass(Use::kReduction, values);
    ledger_.Remove(Use::kReduction, scattering_);
    for (const int64_t slot : slots) {
      if (const auto sum = accumulators_.extract(slot); !sum.empty())
        ledger_.Remove(Use::kReduction, sum.mapped());
    }
    const bool narrow = parts_.batch.step.reduction == ReductionType::kBf16;
    scattering_ = Sizes(block).trained_flat * (narrow ? 2 : parts_.batch.sum_bytes());
    ledger_.Add(Use::kReduction, scattering_);
  }
  if (micro_batch == parts_.micro_batches - 1) reduce_.Done(Sizes(block).trained);
}

}  // namespace osler
