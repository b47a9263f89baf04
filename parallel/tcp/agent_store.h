// The key-value store that torchrun's agent serves to its workers (c10d's TCPStore): where ranks
// leave each other their first address. Blocking.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/tcp/socket.h"

namespace osler::tcp {

absl::Status PutIntoAgentStore(const Endpoint& agent, const std::string& key,
                               const std::string& value, double timeout_s);
// Waits for the key.
absl::StatusOr<std::string> GetFromAgentStore(const Endpoint& agent, const std::string& key,
                                              double timeout_s);

}  // namespace osler::tcp
