#include "parallel/tcp/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"

namespace osler::tcp {
namespace {

constexpr int kBacklog = 512;

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

absl::Status SystemError(std::string_view what, int error) {
  return DeviceError(
      absl::StrCat(absl::string_view(what.data(), what.size()), ": ", std::strerror(error)));
}

absl::StatusOr<Addresses> Resolve(const std::string& host, int port, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int code = getaddrinfo(host.empty() ? nullptr : host.c_str(), absl::StrCat(port).c_str(),
                               &hints, &found);
  if (code != 0) {
    return DeviceError(
        absl::StrCat("cannot find the address of host '", host,
                     "': ", code == EAI_SYSTEM ? std::strerror(errno) : gai_strerror(code)));
  }
  return Addresses(found, &freeaddrinfo);
}

void Set(int fd, int level, int option, int value) {
  setsockopt(fd, level, option, &value, sizeof value);  // an option refused only costs speed
}

void SetStreamOptions(int fd) {
  Set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  Set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  Set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 10);
  Set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  Set(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

Fd MakeSocket(int family) {
  return Fd(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

absl::StatusOr<Fd> ListenAt(const addrinfo& address, const std::string& name) {
  Fd fd = MakeSocket(address.ai_family);
  if (!fd.valid()) return SystemError("cannot make a socket", errno);
  Set(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  // The wildcard of IPv6 takes IPv4 too.
  if (address.ai_family == AF_INET6) Set(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0);
  if (bind(fd.get(), address.ai_addr, address.ai_addrlen) != 0 || listen(fd.get(), kBacklog) != 0) {
    return SystemError(absl::StrCat("cannot listen on ", name), errno);
  }
  return fd;
}

absl::StatusOr<Fd> ConnectTo(const addrinfo& address, const std::string& name,
                             Clock::time_point deadline) {
  Fd fd = MakeSocket(address.ai_family);
  if (!fd.valid()) return SystemError("cannot make a socket", errno);
  int error = connect(fd.get(), address.ai_addr, address.ai_addrlen) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    if (!WaitFor(fd.get(), POLLOUT, deadline)) return SystemError(name, ETIMEDOUT);
    socklen_t size = sizeof error;
    getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  }
  if (error != 0) return SystemError(name, error);
  SetStreamOptions(fd.get());
  return fd;
}

Endpoint Numeric(const sockaddr_storage& address, socklen_t size) {
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, host, sizeof host, port,
                  sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return {};
  }
  Endpoint end{host, 0};
  if (absl::StartsWith(end.host, "::ffff:")) end.host = end.host.substr(7);  // IPv4 in IPv6
  return absl::SimpleAtoi(port, &end.port) ? end : Endpoint{};
}

}  // namespace

Fd::~Fd() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<Endpoint> ParseEndpoint(std::string_view text) {
  const auto bad = [&] {
    return ConfigError(absl::StrCat("'", absl::string_view(text.data(), text.size()),
                                    "' is no address: write HOST:PORT, or [ADDRESS]:PORT for an "
                                    "IPv6 address"));
  };
  Endpoint endpoint;
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return bad();
  const std::string port(text.substr(colon + 1));
  std::string_view host = text.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return bad();
  }
  endpoint.host = std::string(host);
  if (host.empty() || !absl::SimpleAtoi(port, &endpoint.port) || endpoint.port < 1 ||
      endpoint.port > 65535) {
    return bad();
  }
  return endpoint;
}

std::string ToString(const Endpoint& endpoint) {
  return endpoint.host.find(':') == std::string::npos
             ? absl::StrCat(endpoint.host, ":", endpoint.port)
             : absl::StrCat("[", endpoint.host, "]:", endpoint.port);
}

bool IsLoopback(std::string_view host) {
  in_addr four{};
  if (inet_pton(AF_INET, std::string(host).c_str(), &four) == 1) {
    return ntohl(four.s_addr) >> 24 == 127;
  }
  return host == "localhost" || host == "::1";
}

absl::StatusOr<Fd> Listen(const std::string& host, int port) {
  const std::string name = ToString({host.empty() ? "every interface" : host, port});
  OSLER_ASSIGN_OR_RETURN(const Addresses addresses,
                         Resolve(host, port, host.empty() ? AI_PASSIVE : 0));
  absl::StatusOr<Fd> result = DeviceError(absl::StrCat("host '", host, "' has no address"));
  // IPv6 first: its wildcard takes both.
  for (const int family : {AF_INET6, AF_INET}) {
    for (const addrinfo* a = addresses.get(); a != nullptr && !result.ok(); a = a->ai_next) {
      if (a->ai_family == family) result = ListenAt(*a, name);
    }
  }
  return result;
}

absl::StatusOr<Fd> Accept(const Fd& listener) {
  Fd fd(accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (fd.valid()) {
    SetStreamOptions(fd.get());
    return fd;
  }
  // Anything else (the peer has gone again, no descriptors are left) is no reason to stop.
  const int error = errno;
  if (error == EBADF || error == EINVAL || error == ENOTSOCK) return SystemError("accept", error);
  return Fd();
}

absl::StatusOr<Fd> Connect(const Endpoint& endpoint, Clock::time_point deadline) {
  const std::string name = absl::StrCat("cannot reach ", ToString(endpoint));
  OSLER_ASSIGN_OR_RETURN(const Addresses addresses, Resolve(endpoint.host, endpoint.port, 0));
  absl::StatusOr<Fd> result = DeviceError(absl::StrCat(name, ": it has no address"));
  for (const addrinfo* a = addresses.get(); a != nullptr && !result.ok(); a = a->ai_next) {
    result = ConnectTo(*a, name, deadline);
  }
  return result;
}

bool WaitFor(int fd, short events, Clock::time_point deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd entry{fd, events, 0};
    const int ready =
        poll(&entry, 1, static_cast<int>(std::clamp<int64_t>(left.count(), 0, 60'000)));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return true;  // the call that follows tells what is wrong
    if (Clock::now() >= deadline) return false;
  }
}

Endpoint LocalEnd(const Fd& fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) return {};
  return Numeric(address, size);
}

Endpoint RemoteEnd(const Fd& fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getpeername(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) return {};
  return Numeric(address, size);
}

std::string HostName() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return name;
}

std::vector<std::string> InterfaceAddresses() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return {};
  std::vector<std::string> addresses;
  for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || (one->ifa_flags & (IFF_UP | IFF_LOOPBACK)) != IFF_UP) continue;
    const int family = one->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    sockaddr_storage address{};
    const socklen_t size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    std::memcpy(&address, one->ifa_addr, size);
    const std::string host = Numeric(address, size).host;
    // Link-local addresses mean nothing on another host.
    if (!host.empty() && host.find('%') == std::string::npos) addresses.push_back(host);
  }
  freeifaddrs(list);
  return addresses;
}

absl::StatusOr<std::pair<Fd, Fd>> SocketPair() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) {
    return SystemError("cannot make a pair of sockets", errno);
  }
  return std::pair<Fd, Fd>(Fd(ends[0]), Fd(ends[1]));
}

}  // namespace osler::tcp
