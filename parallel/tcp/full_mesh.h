// One data connection between every two ranks.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/tcp/handshake.h"
#include "parallel/tcp/socket.h"

namespace osler::tcp {

// Connects rank `rank` with all others: it dials the lower ones where `listeners` (by rank) says,
// and the higher ones come to `listener`, its own. All ranks call it together; blocks. Element r is
// the connection to rank r, an invalid one for the rank itself. Device errors name the rank that is
// missing.
absl::StatusOr<std::vector<Fd>> ConnectFullMesh(int rank, const std::vector<Endpoint>& listeners,
                                                Fd listener, const std::string& secret,
                                                Clock::time_point deadline);

}  // namespace osler::tcp
