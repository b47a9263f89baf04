#include "parallel/small_values.h"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace osler {

std::vector<std::string> GatherText(Communicator& comm, std::string_view text) {
  constexpr auto kWord = static_cast<int64_t>(sizeof(int64_t));
  const int ranks = comm.size(), own = comm.rank();
  const at::Tensor sizes = at::zeros({ranks}, at::kLong);
  auto* size = sizes.mutable_data_ptr<int64_t>();
  size[own] = static_cast<int64_t>(text.size());
  comm.AllGather({sizes}, "sizes of texts").Wait();
  // In int64 words, since collectives know no bytes.
  const int64_t words = (*std::max_element(size, size + ranks) + kWord - 1) / kWord;
  const at::Tensor all = at::zeros({ranks * words}, at::kLong);
  char* bytes = static_cast<char*>(all.mutable_data_ptr());
  const auto of = [&](int rank) { return bytes + rank * words * kWord; };
  if (!text.empty()) std::memcpy(of(own), text.data(), text.size());
  comm.AllGather({all}, "texts").Wait();
  std::vector<std::string> texts;
  for (int rank = 0; rank < ranks; ++rank)
    texts.emplace_back(of(rank), static_cast<size_t>(size[rank]));
  return texts;
}

int64_t BroadcastInt(Communicator& comm, int64_t value) {
  const at::Tensor x = at::full({1}, value, at::kLong);
  comm.Broadcast(x, 0, "number").Wait();
  return x.item<int64_t>();
}

}  // namespace osler
