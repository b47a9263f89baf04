// The control plane with one thread a rank: who is blamed for what, how soon, and what strangers
// on the control port can do (nothing).
#include "parallel/control_plane.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "parallel/control_hub.h"
#include "parallel/tcp/connection.h"
#include "parallel/tcp/handshake.h"
#include "tests/testing/matchers.h"

namespace osler {
namespace {

using tcp::Clock;
using tcp::Seconds;
using ::testing::AllOf;
using testing::Fails;
using ::testing::HasSubstr;
using testing::IsOk;

constexpr double kPatience_s = 20;  // bounds are generous: other work shares the cores

double Since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

ControlTimes QuickTimes() {
  ControlTimes times;
  times.heartbeat_s = 0.1;
  times.silence_s = 2;
  times.connect_s = 10;
  times.linger_s = 0.5;
  times.hold_s = 0.3;
  return times;
}

using Connected = absl::StatusOr<std::unique_ptr<ControlPlane>>;

// A hub on loopback and ranks that join it.
struct Ranks {
  explicit Ranks(int size, const ControlTimes& the_times = QuickTimes(),
                 const std::string& the_secret = "swordfish")
      : times(the_times),
        world_size(size),
        secret(the_secret),
        listener(*tcp::Listen("127.0.0.1", 0)),
        endpoint(tcp::LocalEnd(listener)) {}

  ControlSeat Seat(int rank) const { return {rank, world_size, secret, times}; }
  Connected Join(int rank) { return ControlPlane::Join(Seat(rank), {endpoint}); }
  Connected Lead() { return ControlPlane::Lead(Seat(0), std::move(listener)); }

  // Every rank's control plane.
  std::vector<Connected> All() {
    std::vector<Connected> planes;
    for (int r = 0; r < world_size; ++r) planes.emplace_back(absl::UnknownError("not yet"));
    std::vector<std::thread> threads;
    for (int r = 0; r < world_size; ++r) {
      threads.emplace_back([&, r] { planes[static_cast<size_t>(r)] = r == 0 ? Lead() : Join(r); });
    }
    for (std::thread& thread : threads) thread.join();
    for (const Connected& plane : planes) EXPECT_THAT(plane, IsOk());
    return planes;
  }

  ControlTimes times;
  int world_size;
  std::string secret;
  tcp::Fd listener;
  tcp::Endpoint endpoint;
};

// A rank that speaks the protocol by hand, and can therefore misbehave.
struct Puppet {
  Puppet(Ranks& run, int rank)
      : connection(*tcp::Dial({run.endpoint}, run.secret,
                              {tcp::Purpose::kControl, rank, run.world_size},
                              Clock::now() + Seconds(kPatience_s))) {}
  tcp::Connection connection;
};

Blame VerdictOf(ControlPlane& plane) {
  const auto begin = Clock::now();
  while (!plane.verdict().has_value() && Since(begin) < kPatience_s) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return plane.verdict().value_or(Blame{-1, "no verdict"});
}

bool Verdictless(ControlPlane& plane, double seconds) {
  std::this_thread::sleep_for(Seconds(seconds));
  return !plane.verdict().has_value();
}

TEST(ControlPlane, AloneOpensNothing) {
  const auto plane = ControlPlane::Alone();
  EXPECT_EQ(plane->world_size(), 1);
  ASSERT_OK_AND_ASSIGN(const auto blobs, plane->Exchange("x", "mine"));
  EXPECT_EQ(blobs, std::vector<std::string>{"mine"});
  EXPECT_EQ(plane->Leave(DeviceError("broken")), std::nullopt);
}

TEST(ControlPlane, ExchangesByRank) {
  Ranks run(3);
  auto planes = run.All();
  std::vector<std::thread> threads;
  for (int r = 0; r < 3; ++r) {
    threads.emplace_back([&, r] {
      for (int i = 0; i < 20; ++i) {
        const std::string end = absl::StrCat(std::string(1, '\0'), i);
        const std::string mine =
            absl::StrCat(std::string(static_cast<size_t>(r * 100'000), 'x'), r, end);
        const auto blobs = (*planes[static_cast<size_t>(r)])->Exchange("table", mine);
        ASSERT_THAT(blobs, IsOk());
        ASSERT_EQ(blobs->size(), 3u);
        EXPECT_EQ((*blobs)[static_cast<size_t>(r)], mine);
        EXPECT_EQ((*blobs)[0], absl::StrCat(0, end));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(ControlPlane, SettingsThatDifferAreNamed) {
  Ranks run(3);
  auto planes = run.All();
  std::vector<std::thread> threads;
  for (int r = 0; r < 3; ++r) {
    threads.emplace_back([&, r] {
      ControlPlane& plane = **planes[static_cast<size_t>(r)];
      EXPECT_THAT(CheckSameOnAllRanks(plane, "configuration", "a: 1\nb: 2\n"), IsOk());
      const std::string text = r == 2 ? "a: 1\nb: 3\n" : "a: 1\nb: 2\n";
      EXPECT_THAT(
          CheckSameOnAllRanks(plane, "configuration", text),
          Fails(ExitCode::kConfig, AllOf(HasSubstr("rank 2 has another configuration than rank 0"),
                                         HasSubstr("'b: 3' where rank 0 has 'b: 2'"))));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(ControlPlane, LeavingInGoodOrderBlamesNobody) {
  for (const int first : {0, 1, 2}) {
    Ranks run(3);
    auto planes = run.All();
    EXPECT_EQ((*planes[static_cast<size_t>(first)])->Leave(absl::OkStatus()), std::nullopt);
    planes[static_cast<size_t>(first)] = absl::UnknownError("gone");
    for (Connected& plane : planes) {
      EXPECT_TRUE(!plane.ok() || Verdictless(**plane, 0.3));
    }
  }
}

TEST(ControlPlane, ADeadRankIsKnownToAllAtOnce) {
  Ranks run(4);
  std::vector<Connected> planes;
  for (int r = 0; r < 4; ++r) planes.emplace_back(absl::UnknownError("not yet"));
  std::thread zero([&] { planes[0] = run.Lead(); });
  std::thread one([&] { planes[1] = run.Join(1); });
  std::thread two([&] { planes[2] = run.Join(2); });
  auto dead = std::make_unique<Puppet>(run, 3);
  for (std::thread* thread : {&zero, &one, &two}) thread->join();
  std::atomic<int> told{0};
  for (int r = 0; r < 3; ++r) {
    (*planes[static_cast<size_t>(r)])->Watch([&](const Blame& blame) { told += blame.rank == 3; });
  }
  const auto begin = Clock::now();
  dead.reset();
  for (int r = 0; r < 3; ++r) {
    const Blame blame = VerdictOf(**planes[static_cast<size_t>(r)]);
    EXPECT_EQ(blame.rank, 3);
    EXPECT_THAT(blame.reason, HasSubstr("died without a word"));
  }
  std::printf("a dead rank was known to all after %.3f s\n", Since(begin));
  EXPECT_LT(Since(begin), 1.5);
  planes.clear();
  EXPECT_EQ(told, 3);
}

TEST(ControlPlane, ASilentRankIsKnownInTime) {
  Ranks run(2);
  Connected zero = absl::UnknownError("not yet");
  std::thread thread([&] { zero = run.Lead(); });
  Puppet silent(run, 1);
  thread.join();
  ASSERT_THAT(zero, IsOk());
  const auto begin = Clock::now();
  const Blame blame = VerdictOf(**zero);
  EXPECT_EQ(blame.rank, 1);
  EXPECT_THAT(blame.reason, HasSubstr("was silent for 2."));
  EXPECT_GT(Since(begin), 1.0);
  EXPECT_LT(Since(begin), 6.0);
}

TEST(ControlPlane, ASilentHubIsKnownInTime) {
  Ranks run(2);
  Connected one = absl::UnknownError("not yet");
  std::thread thread([&] { one = run.Join(1); });
  std::vector<tcp::Guest> guests;
  tcp::Acceptor acceptor(std::move(run.listener), {"hub", run.secret},
                         [](const tcp::Hello&) { return absl::OkStatus(); });
  while (guests.empty()) guests = acceptor.Advance();
  guests[0].connection.Send(kReady);
  ASSERT_THAT(guests[0].connection.Flush(), IsOk());
  thread.join();
  ASSERT_THAT(one, IsOk());
  const Blame blame = VerdictOf(**one);
  EXPECT_EQ(blame.rank, 0);
  EXPECT_THAT(blame.reason, HasSubstr("was silent for"));
}

TEST(ControlPlane, TheDeathOfTheHubIsKnown) {
  Ranks run(2);
  Connected one = absl::UnknownError("not yet");
  std::thread thread([&] { one = run.Join(1); });
  {
    std::vector<tcp::Guest> guests;
    tcp::Acceptor acceptor(std::move(run.listener), {"hub", run.secret},
                           [](const tcp::Hello&) { return absl::OkStatus(); });
    while (guests.empty()) guests = acceptor.Advance();
    guests[0].connection.Send(kReady);
    ASSERT_THAT(guests[0].connection.Flush(), IsOk());
    thread.join();
  }
  ASSERT_THAT(one, IsOk());
  const Blame blame = VerdictOf(**one);
  EXPECT_EQ(blame.rank, 0);
  EXPECT_THAT(blame.reason, HasSubstr("died without a word"));
}

TEST(ControlPlane, LastWordsBlameTheRankThatFailed) {
  for (const int culprit : {0, 2}) {
    Ranks run(3);
    auto planes = run.All();
    const auto own = (*planes[static_cast<size_t>(culprit)])->Leave(DeviceError("no memory left"));
    ASSERT_TRUE(own.has_value());
    EXPECT_EQ(own->rank, culprit);
    for (int r = 0; r < 3; ++r) {
      const Blame blame = VerdictOf(**planes[static_cast<size_t>(r)]);
      EXPECT_EQ(blame.rank, culprit);
      EXPECT_EQ(blame.reason, "failed: no memory left");
    }
  }
}

TEST(ControlPlane, TheMessengerIsNotTheCulprit) {
  Ranks run(3);
  std::vector<Connected> planes;
  for (int r = 0; r < 2; ++r) planes.emplace_back(absl::UnknownError("not yet"));
  std::thread zero([&] { planes[0] = run.Lead(); });
  std::thread one([&] { planes[1] = run.Join(1); });
  auto dying = std::make_unique<Puppet>(run, 2);
  zero.join();
  one.join();
  // Rank 1 speaks first; rank 2's end is seen a little later.
  std::thread killer([&] {
    std::this_thread::sleep_for(Seconds(0.1));
    dying.reset();
  });
  const auto blame = (*planes[1])->Leave(CommunicationError("the connection to rank 2 broke"));
  killer.join();
  ASSERT_TRUE(blame.has_value());
  EXPECT_EQ(blame->rank, 2);
  EXPECT_THAT(blame->reason, HasSubstr("died"));
}

TEST(ControlPlane, AReportThatNothingExplainsBlamesItsSender) {
  Ranks run(3);
  auto planes = run.All();
  const auto begin = Clock::now();
  const auto blame = (*planes[1])->Leave(CommunicationError("the network is down"));
  ASSERT_TRUE(blame.has_value());
  EXPECT_EQ(blame->rank, 1);
  EXPECT_THAT(blame->reason, HasSubstr("the network is down"));
  EXPECT_LT(Since(begin), 3.0);
  EXPECT_EQ(VerdictOf(**planes[0]).rank, 1);
}

TEST(ControlPlane, ARankThatLeavesWithAnErrorWhileOthersGoOnIsBlamed) {
  for (const int culprit : {0, 1}) {
    Ranks run(3);
    auto planes = run.All();
    EXPECT_EQ((*planes[static_cast<size_t>(culprit)])->Leave(DataError("bad shard")), std::nullopt);
    const Blame blame = VerdictOf(**planes[2]);
    EXPECT_EQ(blame.rank, culprit);
    EXPECT_THAT(blame.reason, HasSubstr("left with exit code 3: bad shard"));
  }
}

TEST(ControlPlane, MissingRanksAreNamed) {
  ControlTimes times = QuickTimes();
  times.connect_s = 0.7;
  Ranks run(4, times);
  Connected one = absl::UnknownError("not yet");
  std::thread thread([&] { one = run.Join(1); });
  const Connected zero = run.Lead();
  thread.join();
  for (const Connected* plane : {&zero, static_cast<const Connected*>(&one)}) {
    EXPECT_THAT(
        plane->status(),
        Fails(ExitCode::kDevice, AllOf(HasSubstr("rank 2 did not come within 0.7 s"),
                                       HasSubstr("2 of 4 ranks are missing"), HasSubstr("2, 3"))));
  }
}

TEST(ControlPlane, AHubThatIsNotThereIsNamed) {
  ControlTimes times = QuickTimes();
  times.connect_s = 0.5;
  Ranks run(2, times);
  run.listener = tcp::Fd();  // nobody listens there now
  EXPECT_THAT(run.Join(1).status(),
              Fails(ExitCode::kDevice,
                    AllOf(HasSubstr("rank 1 cannot join rank 0 within 0.5 s"),
                          HasSubstr(tcp::ToString(run.endpoint)), HasSubstr("refused"))));
}

TEST(ControlPlane, RanksThatDoNotBelongAreToldWhy) {
  Ranks run(2);
  const tcp::Endpoint endpoint = run.endpoint;
  Connected zero = absl::UnknownError("not yet");
  std::thread thread([&] { zero = run.Lead(); });
  const auto join = [&](int rank, int size, const std::string& secret) {
    return ControlPlane::Join({rank, size, secret, run.times}, {endpoint}).status();
  };
  EXPECT_THAT(join(1, 2, "wrong"), Fails(ExitCode::kDevice, HasSubstr("OSLER_RUN_SECRET")));
  EXPECT_THAT(join(1, 3, run.secret), Fails(ExitCode::kDevice, AllOf(HasSubstr("a run of 3 ranks"),
                                                                     HasSubstr("one of 2"))));
  EXPECT_THAT(join(0, 2, run.secret),
              Fails(ExitCode::kDevice, HasSubstr("rank 0 is here already")));
  const Connected one = run.Join(1);
  thread.join();
  ASSERT_THAT(one, IsOk());
  EXPECT_THAT(join(1, 2, run.secret),
              Fails(ExitCode::kDevice, HasSubstr("rank 1 is here already")));
  EXPECT_FALSE((*zero)->verdict().has_value());
}

// Bytes on the control port from someone who is no rank; the connection stays open until the end.
std::vector<tcp::Fd> Strangers(const tcp::Endpoint& endpoint) {
  std::string too_long;
  tcp::AppendFrame(2, "", too_long);
  too_long[9] = too_long[10] = '\x7f';
  std::string greeting;
  tcp::AppendFrame(
      2, tcp::FieldWriter().Int(1).Int(1).Int(3).Text(std::string(32, 'n')).Text("mac").bytes(),
      greeting);
  std::vector<tcp::Fd> open;
  for (const std::string& bytes :
       {std::string("GET / HTTP/1.1\r\n\r\n"), std::string(100'000, '\xff'), std::string("OSL"),
        too_long, greeting, greeting.substr(0, 20), std::string()}) {
    auto fd = tcp::Connect(endpoint, Clock::now() + Seconds(kPatience_s));
    EXPECT_THAT(fd, IsOk());
    send(fd->get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    open.push_back(*std::move(fd));
  }
  for (int i = 0; i < 50; ++i) {  // come and go
    auto gone = tcp::Connect(endpoint, Clock::now() + Seconds(kPatience_s));
    EXPECT_THAT(gone, IsOk());
  }
  return open;
}

TEST(ControlPlane, StrangersDisturbNobody) {
  Ranks run(3);
  const tcp::Endpoint endpoint = run.endpoint;
  const auto before = Strangers(endpoint);
  auto planes = run.All();
  const auto after = Strangers(endpoint);
  for (Connected& plane : planes) EXPECT_TRUE(Verdictless(**plane, 0.2));
  std::vector<std::thread> threads;
  for (Connected& plane : planes) {
    threads.emplace_back([&] { EXPECT_THAT((*plane)->Exchange("still", "here"), IsOk()); });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(ControlPlane, AServerThatIsNoHubIsNamed) {
  ControlTimes times = QuickTimes();
  times.connect_s = 1;
  for (const std::string& answer : {std::string("HTTP/1.1 400 Bad Request\r\n"), std::string()}) {
    Ranks run(2, times);
    std::atomic<bool> done{false};
    std::thread server([&] {
      std::vector<tcp::Fd> clients;
      while (!done) {
        auto fd = tcp::Accept(run.listener);
        if (fd.ok() && fd->valid()) {
          send(fd->get(), answer.data(), answer.size(), MSG_NOSIGNAL);
          clients.push_back(*std::move(fd));
        }
      }
    });
    EXPECT_THAT(run.Join(1).status(),
                Fails(ExitCode::kDevice,
                      AllOf(HasSubstr(tcp::ToString(run.endpoint)),
                            HasSubstr(answer.empty() ? "says nothing" : "does not speak"))));
    done = true;
    server.join();
  }
}

}  // namespace
}  // namespace osler
