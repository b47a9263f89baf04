#include "parallel/operation.h"

#include <algorithm>

#include "parallel/engine.h"

namespace osler {

Transfer& Exchange::Post(int peer, void* data, size_t bytes) {
  const uint32_t channel = group_.channel + (operation_.lane() == Operation::kCollectives ? 0 : 1);
  return operation_.transfers_.emplace_back(
      operation_.tally_, group_.ranks[static_cast<size_t>(peer)], channel, data, bytes);
}

void Exchange::SendNote(int to, const void* data, int64_t bytes, int64_t payload) {
  group_.bytes_sent.fetch_add(payload, std::memory_order_relaxed);
  group_.member->transport->Send(Post(to, const_cast<void*>(data), static_cast<size_t>(bytes)));
}

void Exchange::Send(int to, const void* data, int64_t bytes) {
  constexpr auto kMost = static_cast<int64_t>(kMaxMessageBytes);
  for (int64_t begin = 0; begin < bytes; begin += kMost) {
    const int64_t part = std::min(kMost, bytes - begin);
    SendNote(to, static_cast<const char*>(data) + begin, part, part);
  }
}

void Exchange::Receive(int from, void* data, int64_t bytes) {
  constexpr auto kMost = static_cast<int64_t>(kMaxMessageBytes);
  for (int64_t begin = 0; begin < bytes; begin += kMost) {
    const auto part = static_cast<size_t>(std::min(kMost, bytes - begin));
    group_.member->transport->Receive(Post(from, static_cast<char*>(data) + begin, part));
  }
}

int Exchange::world_rank() const { return group_.member->transport->rank(); }

int Exchange::world_rank(int rank) const { return group_.ranks[static_cast<size_t>(rank)]; }

const std::string& Exchange::group_name() const { return group_.name; }

void Operation::Wait() { engine_.Wait(*this); }

}  // namespace osler
