#include "parallel/tcp/agent_store.h"

#include <chrono>
#include <cstdint>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/torch_status.h"

namespace osler::tcp {
namespace {

absl::Status With(const Endpoint& agent, double timeout_s,
                  absl::FunctionRef<void(c10d::TCPStore&)> work) {
  const absl::Status status = CatchTorch([&] {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(agent.port);
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(static_cast<int64_t>(timeout_s * 1e3));
    c10d::TCPStore store(agent.host, options);
    work(store);
    return absl::OkStatus();
  });
  if (status.ok()) return status;
  return DeviceError(absl::StrCat("torchrun's store at ", ToString(agent),
                                  " does not answer: ", status.message()));
}

}  // namespace

absl::Status PutIntoAgentStore(const Endpoint& agent, const std::string& key,
                               const std::string& value, double timeout_s) {
  return With(agent, timeout_s, [&](c10d::TCPStore& store) {
    store.set(key, {value.begin(), value.end()});
  });
}

absl::StatusOr<std::string> GetFromAgentStore(const Endpoint& agent, const std::string& key,
                                              double timeout_s) {
  std::string value;
  const absl::Status status = With(agent, timeout_s, [&](c10d::TCPStore& store) {
    const std::vector<uint8_t> bytes = store.get(key);
    value.assign(bytes.begin(), bytes.end());
  });
  if (!status.ok()) return status;
  return value;
}

}  // namespace osler::tcp
