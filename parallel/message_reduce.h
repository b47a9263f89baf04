// All-reduce and reduce-scatter over messages.
//
// The rank that sums a slice receives everyone's version of it, combines them in rank order, and
// (all-reduce) hands the result to all: each rank sends and receives 2·(n − 1)/n of the tensor, the
// least possible. It goes piece by piece, the next piece being collected while this one is summed
// and shared, so that scratch memory is two pieces. A small all-reduce goes whole to everyone, in
// the notes, and everyone sums it.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "parallel/message_meeting.h"
#include "parallel/reduce.h"

namespace osler {

class ReduceOperation : public MeetingOperation {
 public:
  ReduceOperation(Collective collective, const Place& place, Engine& engine, uint64_t record);

 protected:
  Segments Payload(int peer) const override;
  Next Begin(Exchange& exchange) override;
  Next Continue(Exchange& exchange) override;

 private:
  // Of one tensor: elements slices[r], counted from `base`, are summed by rank r.
  struct Chunk {
    at::ScalarType dtype;
    int64_t element;  // bytes
    char* base;
    std::vector<Slice> slices;
    Segment segment(int of) const;
  };
  using Phase = std::vector<Chunk>;

  void CutAllReduce(const at::Tensor& x);
  void CutScatter(const at::Tensor& x);
  int64_t OwnBytes(const Phase& phase) const;
  // Everyone's version of this rank's slices comes into scratch, peer by peer in rank order.
  void Collect(size_t phase, Exchange& exchange);
  void SumScratch(size_t phase);
  // sources[r]: rank r's version of this rank's slices, one after another; this rank's own are
  // taken from where they lie.
  void Sum(const Phase& phase, std::vector<const char*> sources) const;
  void Share(const Phase& phase, Exchange& exchange);

  std::vector<Phase> phases_;
  bool shared_ = false;                             // sums go to all
  bool small_ = false;                              // notes carry everything
  size_t phase_ = 0;                                // the one that is being collected
  std::array<std::unique_ptr<char[]>, 2> scratch_;  // by parity of the phase
};

}  // namespace osler
