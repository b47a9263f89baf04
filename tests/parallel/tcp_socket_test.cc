#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "parallel/tcp/connection.h"
#include "parallel/tcp/socket.h"
#include "tests/testing/matchers.h"

namespace osler::tcp {
namespace {

using osler::testing::Fails;
using osler::testing::IsOk;
using ::testing::AllOf;
using ::testing::HasSubstr;

Clock::time_point In(double seconds) { return Clock::now() + Seconds(seconds); }

int Option(const Fd& fd, int level, int option) {
  int value = 0;
  socklen_t size = sizeof value;
  getsockopt(fd.get(), level, option, &value, &size);
  return value;
}

TEST(Endpoint, IsReadAndWritten) {
  for (const char* text : {"node1:29500", "10.0.0.1:1", "[::1]:65535", "[fe80::2]:80"}) {
    ASSERT_OK_AND_ASSIGN(const Endpoint endpoint, ParseEndpoint(text));
    EXPECT_EQ(ToString(endpoint), text);
  }
  for (const char* text : {"", ":", "a", "a:", ":1", "a:0", "a:65536", "a:1x", "::1:5", "[]:1"}) {
    EXPECT_THAT(ParseEndpoint(text), Fails(ExitCode::kConfig, HasSubstr("HOST:PORT"))) << text;
  }
}

TEST(Endpoint, KnowsLoopback) {
  for (const char* host : {"localhost", "127.0.0.1", "127.9.9.9", "::1"})
    EXPECT_TRUE(IsLoopback(host));
  for (const char* host : {"", "node1", "10.0.0.1", "128.0.0.1", "::"})
    EXPECT_FALSE(IsLoopback(host));
}

TEST(Socket, ConnectsOverBothFamiliesWithTheOptionsPromised) {
  for (const std::string& host :
       {std::string("127.0.0.1"), std::string("::1"), std::string("localhost")}) {
    const auto listener = Listen(host, 0);
    if (!listener.ok() && host == "::1") continue;  // a machine without IPv6
    ASSERT_THAT(listener, IsOk());
    const int port = LocalEnd(*listener).port;
    ASSERT_OK_AND_ASSIGN(const Fd client, Connect({host, port}, In(10)));
    ASSERT_TRUE(WaitFor(listener->get(), POLLIN, In(10)));
    ASSERT_OK_AND_ASSIGN(const Fd server, Accept(*listener));
    ASSERT_TRUE(server.valid());
    EXPECT_EQ(RemoteEnd(client).port, port);
    EXPECT_EQ(RemoteEnd(server).port, LocalEnd(client).port);
    EXPECT_TRUE(IsLoopback(RemoteEnd(server).host));
    for (const Fd* fd : {&client, &server}) {
      EXPECT_NE(fcntl(fd->get(), F_GETFD) & FD_CLOEXEC, 0);
      EXPECT_NE(fcntl(fd->get(), F_GETFL) & O_NONBLOCK, 0);
      EXPECT_NE(Option(*fd, IPPROTO_TCP, TCP_NODELAY), 0);
      EXPECT_NE(Option(*fd, SOL_SOCKET, SO_KEEPALIVE), 0);
    }
  }
}

TEST(Socket, TheWildcardTakesIpv4) {
  ASSERT_OK_AND_ASSIGN(const Fd listener, Listen("", 0));
  ASSERT_OK_AND_ASSIGN(const Fd client, Connect({"127.0.0.1", LocalEnd(listener).port}, In(10)));
  ASSERT_TRUE(WaitFor(listener.get(), POLLIN, In(10)));
  ASSERT_OK_AND_ASSIGN(const Fd server, Accept(listener));
  EXPECT_EQ(RemoteEnd(server).host, "127.0.0.1");
}

TEST(Socket, FailuresNameTheAddressAndTheReason) {
  ASSERT_OK_AND_ASSIGN(Fd listener, Listen("127.0.0.1", 0));
  const Endpoint taken = LocalEnd(listener);
  EXPECT_THAT(Listen("127.0.0.1", taken.port),
              Fails(ExitCode::kDevice, AllOf(HasSubstr(ToString(taken)), HasSubstr("in use"))));
  ASSERT_OK_AND_ASSIGN(const Fd none, Accept(listener));
  EXPECT_FALSE(none.valid());
  EXPECT_FALSE(WaitFor(listener.get(), POLLIN, In(0.05)));
  listener = Fd();
  EXPECT_THAT(Connect(taken, In(5)),
              Fails(ExitCode::kDevice, AllOf(HasSubstr(ToString(taken)), HasSubstr("refused"))));
  EXPECT_THAT(Connect({"no-such-host.invalid", 1}, In(5)),
              Fails(ExitCode::kDevice, HasSubstr("no-such-host.invalid")));
}

TEST(Connection, FramesSurviveAnyCut) {
  ASSERT_OK_AND_ASSIGN(auto ends, SocketPair());
  Connection here(std::move(ends.first), 100), there(std::move(ends.second), 3'000'000);
  const std::string large(2'500'000, 'x');
  here.Send(7, "first");
  here.Send(8, large);
  here.Send(9);
  std::vector<Frame> frames;
  while (frames.size() < 3) {
    ASSERT_THAT(here.Flush(), IsOk());
    ASSERT_THAT(there.Receive(), IsOk());
    ASSERT_OK_AND_ASSIGN(auto frame, there.Next());
    if (frame.has_value()) frames.push_back(*std::move(frame));
  }
  EXPECT_EQ(frames[0].payload, "first");
  EXPECT_EQ(frames[1].payload, large);
  EXPECT_EQ(frames[2].type, 9);
  there.Send(1, std::string(101, 'y'));
  ASSERT_THAT(there.Flush(), IsOk());
  there.FinishSending();
  ASSERT_THAT(here.Receive(), IsOk());
  EXPECT_THAT(here.Next().status(), Fails(ExitCode::kDevice, HasSubstr("more than the 100")));
  EXPECT_THAT(here.Receive(), Fails(ExitCode::kDevice, HasSubstr("closed")));
}

}  // namespace
}  // namespace osler::tcp
