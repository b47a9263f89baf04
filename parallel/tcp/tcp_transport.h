// The transport of ranks that are connected by plain TCP sockets.
//
// On the wire a message is cut into pieces of 256 KiB, each behind a header of 16 bytes {kind,
// channel, bytes of the message, bytes of the piece}; pieces of different channels take turns, so
// that a small message waits for a piece of a large one at most. Up to 64 KiB a message is sent at
// once and kept by the receiver until it is asked for. A larger one is announced, and sent when its
// receive has begun, straight into its memory. Nothing is encrypted or signed.
#pragma once

#include <memory>
#include <vector>

#include "parallel/tcp/socket.h"
#include "parallel/transport.h"

namespace osler::tcp {

// `peers[r]` is a connection to rank r; the one at `rank` is not used.
std::unique_ptr<Transport> MakeTcpTransport(int rank, std::vector<Fd> peers);

}  // namespace osler::tcp
