// Two ends of the TCP transport in one thread, over a pair of sockets.
#include "parallel/tcp/tcp_transport.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing/matchers.h"

namespace osler {
namespace {

using ::testing::HasSubstr;
using State = Transfer::State;

constexpr size_t kMiB = size_t{1} << 20;

struct Pair {
  Pair() {
    auto sockets = tcp::SocketPair();
    std::vector<tcp::Fd> zero(2), one(2);
    zero[1] = std::move(sockets->first);
    one[0] = std::move(sockets->second);
    raw = zero[1].get();
    ends.push_back(tcp::MakeTcpTransport(0, std::move(zero)));
    ends.push_back(tcp::MakeTcpTransport(1, std::move(one)));
  }
  // Moves both ends until `done`; false if that never happens.
  bool Drive(const std::function<bool()>& done) {
    for (int i = 0; i < 100'000; ++i) {
      if (done()) return true;
      for (auto& end : ends) {
        if (end != nullptr) end->Poll();
      }
    }
    return done();
  }
  // A message of `bytes` from rank `from` to the other, filled by `seed`.
  Transfer& Send(int from, uint32_t channel, size_t bytes, char seed) {
    std::string& data = memory.emplace_back(bytes, '\0');
    for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<char>(seed + i * 7 + i / 256);
    Transfer& transfer = transfers.emplace_back(tally, 1 - from, channel, data.data(), bytes);
    ends[static_cast<size_t>(from)]->Send(transfer);
    return transfer;
  }
  Transfer& Receive(int at, uint32_t channel, size_t room) {
    std::string& data = memory.emplace_back(room, '\0');
    Transfer& transfer = transfers.emplace_back(tally, 1 - at, channel, data.data(), room);
    ends[static_cast<size_t>(at)]->Receive(transfer);
    return transfer;
  }

  Transfer::Tally tally;
  std::deque<std::string> memory;
  std::deque<Transfer> transfers;
  std::vector<std::unique_ptr<Transport>> ends;
  int raw;  // rank 0's socket
};

std::string_view Bytes(const Transfer& transfer) { return {transfer.data, transfer.bytes}; }

TEST(TcpTransport, MessagesOfEverySizeArriveInOrderInEveryChannel) {
  const std::vector<size_t> sizes = {
      0, 1, 65'535, 65'536, 65'537, 256 * 1024, 256 * 1024 + 1, 3 * kMiB + 5, 0, 17};
  // Receives before, after and amid the sends.
  for (const int order : {0, 1, 2}) {
    Pair pair;
    std::vector<std::pair<Transfer*, Transfer*>> sent_received;
    for (uint32_t channel = 0; channel < 3; ++channel) {
      for (const int from : {0, 1}) {
        std::vector<Transfer*> sent, received;
        const auto send = [&] {
          for (const size_t size : sizes) {
            sent.push_back(&pair.Send(from, channel, size, static_cast<char>(from + 2 * channel)));
          }
        };
        const auto receive = [&] {
          for (size_t i = 0; i < sizes.size(); ++i) {
            received.push_back(&pair.Receive(1 - from, channel, sizes[i] + channel));
            if (order == 2) pair.Drive([n = 0]() mutable { return ++n > 3; });
          }
        };
        if (order == 0) receive();
        send();
        if (order != 0) receive();
        for (size_t i = 0; i < sizes.size(); ++i) sent_received.emplace_back(sent[i], received[i]);
      }
    }
    ASSERT_TRUE(pair.Drive([&] { return pair.tally.under_way == 0; }));
    EXPECT_EQ(pair.tally.broken, 0);
    for (const auto& [sent, received] : sent_received) EXPECT_EQ(Bytes(*sent), Bytes(*received));
  }
}

TEST(TcpTransport, ASmallMessagePassesALargeOne) {
  Pair pair;
  const Transfer& large = pair.Send(0, 1, 64 * kMiB, 1);
  const Transfer& large_in = pair.Receive(1, 1, 64 * kMiB);
  ASSERT_TRUE(pair.Drive([&] { return std::strlen(large_in.data) > 0 || large_in.data[9] != 0; }));
  pair.Send(0, 2, 8, 2);
  const Transfer& small = pair.Receive(1, 2, 8);
  ASSERT_TRUE(pair.Drive([&] { return small.state() == State::kDone; }));
  EXPECT_EQ(large.state(), State::kUnderWay);
  ASSERT_TRUE(pair.Drive([&] { return large_in.state() == State::kDone; }));
  EXPECT_EQ(Bytes(large), Bytes(large_in));
}

TEST(TcpTransport, ALargeMessageWaitsForItsReceive) {
  Pair pair;
  const Transfer& large = pair.Send(0, 1, 2 * kMiB, 1);
  pair.Send(0, 2, 8, 2);
  const Transfer& small = pair.Receive(1, 2, 8);
  ASSERT_TRUE(pair.Drive([&] { return small.state() == State::kDone; }));
  EXPECT_FALSE(
      pair.Drive([&, n = 0]() mutable { return ++n > 100 && large.state() == State::kDone; }));
  const Transfer& large_in = pair.Receive(1, 1, 2 * kMiB);
  ASSERT_TRUE(pair.Drive([&] { return large_in.state() == State::kDone; }));
  EXPECT_EQ(Bytes(large), Bytes(large_in));
}

TEST(TcpTransport, AMessageThatDoesNotFitFails) {
  for (const size_t size : {size_t{100}, 100'000 * size_t{3}}) {
    Pair pair;
    pair.Send(0, 1, size, 1);
    const Transfer& in = pair.Receive(1, 1, size - 1);
    ASSERT_TRUE(pair.Drive([&] { return in.state() == State::kFailed; }));
    EXPECT_THAT(in.error(), HasSubstr("bytes where"));
  }
}

TEST(TcpTransport, APeerThatGoesFailsWhatIsUnderWayAndWhatComes) {
  Pair pair;
  pair.Send(0, 3, 8, 5);  // came in time
  const Transfer& waiting = pair.Receive(1, 1, 8);
  const Transfer& unasked = pair.Send(1, 1, kMiB, 1);
  ASSERT_TRUE(pair.Drive([n = 0]() mutable { return ++n > 5; }));
  pair.ends[0]->Abandon();
  pair.ends[0].reset();
  ASSERT_TRUE(pair.Drive(
      [&] { return waiting.state() == State::kFailed && unasked.state() == State::kFailed; }));
  EXPECT_THAT(waiting.error(), HasSubstr("the connection to rank 0 broke"));
  EXPECT_EQ(pair.Receive(1, 3, 8).state(), State::kDone);
  EXPECT_EQ(pair.Receive(1, 3, 8).state(), State::kFailed);
  EXPECT_EQ(pair.Send(1, 3, 8, 1).state(), State::kFailed);
}

TEST(TcpTransport, BytesThatAreNoMessagesBreakTheConnection) {
  for (const std::string& bytes : {std::string(64, '\xff'), std::string(64, '\0')}) {
    Pair pair;
    const Transfer& waiting = pair.Receive(1, 1, 8);
    ASSERT_EQ(send(pair.raw, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    ASSERT_TRUE(pair.Drive([&] { return waiting.state() == State::kFailed; }));
    EXPECT_THAT(waiting.error(), HasSubstr("something else than messages"));
  }
}

}  // namespace
}  // namespace osler
