#include "parallel/control_plane.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "parallel/control_hub.h"
#include "parallel/tcp/connection.h"
#include "parallel/tcp/handshake.h"

namespace osler {
namespace {

using tcp::Clock;
using tcp::Seconds;

constexpr double kTick_s = 0.1;
constexpr double kFarewell_s = 1;  // for the hub to take it
constexpr double kVerdict_s = 2;   // for the hub to judge last words, beyond its hold

}  // namespace

struct ControlPlane::State {
  State(const ControlSeat& the_seat, tcp::Connection the_connection)
      : seat(the_seat),
        connection(std::move(the_connection)),
        hub_end(tcp::RemoteEnd(connection.fd())),
        own_end(tcp::LocalEnd(connection.fd())),
        wake(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    connection.set_longest_payload(kLongestControlPayload);
  }

  void Run();
  void Wait();
  void Speak();
  void Hear();
  void Handle(const tcp::Frame& frame);
  void Exchanged(const tcp::Frame& frame);
  void Judge();
  void Decide(const Blame& blame);
  void CallHandler();
  void Disconnect();  // the lock is held
  void Post(uint16_t type, std::string payload);
  void Wake();
  // Until `done` or `seconds` have passed; whether it was done.
  bool Await(double seconds, const std::function<bool()>& done);

  const ControlSeat seat;
  tcp::Connection connection;  // of the thread alone
  const tcp::Endpoint hub_end, own_end;
  const tcp::Fd wake;
  std::unique_ptr<ControlHub> hub;  // on rank 0
  Clock::time_point heard = Clock::now(), beat = heard, looked = heard;
  Clock::time_point hub_left_at;
  int64_t exchange_count = 0;

  mutable std::mutex mutex;  // guards what follows
  std::condition_variable changed;
  std::vector<std::pair<uint16_t, std::string>> outbox;
  std::map<std::string, std::vector<std::string>> exchanged;
  std::optional<Blame> verdict;
  std::optional<Words> hub_farewell;
  bool ready = false, leaving = false, closed = false, stop = false;
  std::function<void(const Blame&)> handler;
  bool handled = false;

  std::mutex handler_mutex;  // held while the handler runs
  std::thread thread;        // none in a run of one rank
};

void ControlPlane::State::Run() {
  sigset_t all;  // the process's signals are for its main thread
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  while (true) {
    {
      const std::lock_guard lock(mutex);
      if (stop) return;
    }
    Wait();
    Speak();
    Hear();
    Judge();
    CallHandler();
  }
}

// Until something arrives or is to be sent, at most a tick.
void ControlPlane::State::Wait() {
  pollfd polls[2] = {{wake.get(), POLLIN, 0}, {connection.fd().get(), POLLIN, 0}};
  if (connection.has_unsent()) polls[1].events |= POLLOUT;
  poll(polls, 2, static_cast<int>(kTick_s * 1e3));  // passes over a connection that is closed
  uint64_t wakings = 0;
  [[maybe_unused]] const ssize_t n = read(wake.get(), &wakings, sizeof wakings);
}

void ControlPlane::State::Speak() {
  const auto now = Clock::now();
  std::unique_lock lock(mutex);
  if (closed) return;
  for (const auto& [type, payload] : outbox) connection.Send(type, payload);
  outbox.clear();
  if (!leaving && now - beat > Seconds(seat.times.heartbeat_s)) {
    beat = now;
    connection.Send(kHeartbeat);
  }
  lock.unlock();
  connection.Flush().IgnoreError();  // Hear learns of a connection that broke
  lock.lock();
  if (leaving && outbox.empty() && !connection.has_unsent()) connection.FinishSending();
}

void ControlPlane::State::Hear() {
  {
    const std::lock_guard lock(mutex);
    if (closed) return;
  }
  absl::Status received = connection.Receive();
  while (true) {
    const absl::StatusOr<std::optional<tcp::Frame>> frame = connection.Next();
    if (!frame.ok()) received = frame.status();
    if (!frame.ok() || !frame->has_value()) break;
    heard = Clock::now();
    Handle(**frame);
  }
  if (received.ok() || !connection.fd().valid()) return;
  {
    const std::lock_guard lock(mutex);
    Disconnect();
    if (leaving || hub_farewell.has_value()) return;
  }
  Decide({0, absl::StrCat("died without a word (killed, crashed or out of memory): ",
                          received.message())});
}

void ControlPlane::State::Handle(const tcp::Frame& frame) {
  Blame blame;
  Words words;
  if (frame.type == kVerdict && Decode(frame.payload, blame)) return Decide(blame);
  if (frame.type == kExchanged) return Exchanged(frame);
  const std::lock_guard lock(mutex);
  if (frame.type == kReady) ready = true;
  if (frame.type == kFarewell && Decode(frame.payload, words)) {
    hub_farewell = words;
    hub_left_at = Clock::now();
  }
  changed.notify_all();
}

void ControlPlane::State::Exchanged(const tcp::Frame& frame) {
  tcp::FieldReader fields(frame.payload);
  const std::string name = fields.Text();
  std::vector<std::string> blobs;
  for (int r = 0; r < seat.world_size; ++r) blobs.push_back(fields.Text());
  if (!fields.AtEnd()) return;
  const std::lock_guard lock(mutex);
  exchanged[name] = std::move(blobs);
  changed.notify_all();
}

void ControlPlane::State::Judge() {
  const auto now = Clock::now();
  // This rank was stopped itself: what the hub said meanwhile has only just been read.
  if (now - looked > Seconds(seat.times.silence_s / 2)) heard = now;
  looked = now;
  std::optional<Words> farewell;
  {
    const std::lock_guard lock(mutex);
    if (verdict.has_value() || leaving) return;
    farewell = hub_farewell;
  }
  if (farewell.has_value()) {
    if (farewell->exit_code != 0 && now - hub_left_at > Seconds(seat.times.linger_s)) {
      Decide(
          {0, absl::StrCat("left with exit code ", farewell->exit_code, ": ", farewell->message)});
    }
  } else if (now - heard > Seconds(seat.times.silence_s)) {
    Decide({0, absl::StrFormat("was silent for %.1f s: it is stopped, or cut off",
                               std::chrono::duration<double>(now - heard).count())});
  }
}

// The first verdict counts.
void ControlPlane::State::Decide(const Blame& blame) {
  const std::lock_guard lock(mutex);
  if (!verdict.has_value()) verdict = blame;
  Disconnect();
}

// At once after the hub's last words: it waits for that.
void ControlPlane::State::Disconnect() {
  connection = tcp::Connection(tcp::Fd(), 0);
  closed = true;
  changed.notify_all();
}

void ControlPlane::State::CallHandler() {
  const std::lock_guard running(handler_mutex);
  std::function<void(const Blame&)> call;
  std::optional<Blame> blame;
  {
    const std::lock_guard lock(mutex);
    if (handled || handler == nullptr || !verdict.has_value()) return;
    handled = true;
    call = handler;
    blame = verdict;
  }
  call(*blame);
}

void ControlPlane::State::Post(uint16_t type, std::string payload) {
  {
    const std::lock_guard lock(mutex);
    outbox.emplace_back(type, std::move(payload));
  }
  Wake();
}

void ControlPlane::State::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = write(wake.get(), &one, sizeof one);
}

bool ControlPlane::State::Await(double seconds, const std::function<bool()>& done) {
  std::unique_lock lock(mutex);
  return changed.wait_for(lock, Seconds(seconds), done);
}

ControlPlane::ControlPlane(std::unique_ptr<State> state) : state_(std::move(state)) {}

ControlPlane::~ControlPlane() {
  Leave(absl::OkStatus());
  if (!state_->thread.joinable()) return;
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->Post(kHeartbeat, "");  // wakes the thread
  state_->thread.join();
}

int ControlPlane::rank() const { return state_->seat.rank; }
int ControlPlane::world_size() const { return state_->seat.world_size; }
const tcp::Endpoint& ControlPlane::hub_end() const { return state_->hub_end; }
const tcp::Endpoint& ControlPlane::own_end() const { return state_->own_end; }

std::unique_ptr<ControlPlane> ControlPlane::Alone() {
  return std::unique_ptr<ControlPlane>(
      new ControlPlane(std::make_unique<State>(ControlSeat{}, tcp::Connection(tcp::Fd(), 0))));
}

absl::StatusOr<std::unique_ptr<ControlPlane>> ControlPlane::Lead(const ControlSeat& seat,
                                                                 tcp::Fd listener) {
  OSLER_ASSIGN_OR_RETURN(auto ends, tcp::SocketPair());
  auto state =
      std::make_unique<State>(seat, tcp::Connection(std::move(ends.first), kLongestControlPayload));
  state->hub = std::make_unique<ControlHub>(std::move(listener), std::move(ends.second),
                                            seat.world_size, seat.secret, seat.times);
  return Start(std::move(state));
}

absl::StatusOr<std::unique_ptr<ControlPlane>> ControlPlane::Join(
    const ControlSeat& seat, const std::vector<tcp::Endpoint>& hub) {
  const auto deadline = Clock::now() + Seconds(seat.times.connect_s);
  absl::StatusOr<tcp::Connection> connection =
      tcp::Dial(hub, seat.secret, {tcp::Purpose::kControl, seat.rank, seat.world_size}, deadline);
  if (!connection.ok()) {
    return DeviceError(absl::StrFormat(
        "rank %d cannot join rank 0 within %g s: %s. Is rank 0 running, and is this its address?",
        seat.rank, seat.times.connect_s, std::string(connection.status().message())));
  }
  return Start(std::make_unique<State>(seat, *std::move(connection)));
}

absl::StatusOr<std::unique_ptr<ControlPlane>> ControlPlane::Start(std::unique_ptr<State> state) {
  State& s = *state;
  s.thread = std::thread([&s] { s.Run(); });
  std::unique_ptr<ControlPlane> control(new ControlPlane(std::move(state)));
  s.Await(s.seat.times.connect_s + kVerdict_s, [&] { return s.ready || s.verdict.has_value(); });
  const std::optional<Blame> blame = control->verdict();
  if (blame.has_value()) {
    control->WaitUntilTold();
    return DeviceError(Text(*blame));
  }
  const std::lock_guard lock(s.mutex);
  if (!s.ready) return DeviceError("rank 0 did not say that all ranks have come");
  return control;
}

absl::StatusOr<std::vector<std::string>> ControlPlane::Exchange(std::string_view name,
                                                                std::string_view blob) {
  State& s = *state_;
  if (world_size() == 1) return std::vector<std::string>{std::string(blob)};
  const std::string key =
      absl::StrCat(absl::string_view(name.data(), name.size()), " #", s.exchange_count++);
  s.Post(kExchange, tcp::FieldWriter().Text(key).Text(blob).bytes());
  s.Await(s.seat.times.connect_s,
          [&] { return s.verdict.has_value() || s.exchanged.count(key) > 0; });
  const std::lock_guard lock(s.mutex);
  const auto found = s.exchanged.find(key);
  if (found != s.exchanged.end()) {
    std::vector<std::string> blobs = std::move(found->second);
    s.exchanged.erase(found);
    return blobs;
  }
  if (s.verdict.has_value()) return CommunicationError(Text(*s.verdict));
  return CommunicationError(absl::StrFormat("not all ranks came to exchange '%s' within %g s", key,
                                            s.seat.times.connect_s));
}

void ControlPlane::Watch(std::function<void(const Blame&)> handler) {
  if (!state_->thread.joinable()) return;
  const std::lock_guard running(state_->handler_mutex);
  {
    const std::lock_guard lock(state_->mutex);
    state_->handler = std::move(handler);
  }
  state_->Post(kHeartbeat, "");
}

std::optional<Blame> ControlPlane::verdict() const {
  const std::lock_guard lock(state_->mutex);
  return state_->verdict;
}

std::optional<Blame> ControlPlane::Leave(const absl::Status& status) {
  State& s = *state_;
  if (!s.thread.joinable()) return std::nullopt;
  {
    const std::lock_guard lock(s.mutex);
    if (s.verdict.has_value() || s.leaving) return s.verdict;
  }
  const ExitCode code = ExitCodeOf(status);
  const std::string words = Encode(Words{static_cast<int>(code), std::string(status.message())});
  if (code != ExitCode::kDevice && code != ExitCode::kBug) {
    {
      // Together: the hub closes the connection as soon as it hears the farewell, and to a thread
      // that does not know that this rank leaves that would be a death.
      const std::lock_guard lock(s.mutex);
      s.outbox.emplace_back(kFarewell, words);
      s.leaving = true;
    }
    s.Wake();
  } else {
    s.Post(IsCommunicationError(status) ? kSuspicion : kLastWords, words);
  }
  s.Await(s.seat.times.hold_s + kVerdict_s,
          [&] { return s.verdict.has_value() || (s.leaving && s.closed); });
  WaitUntilTold();
  return verdict();
}

void ControlPlane::WaitUntilTold() const {
  if (state_->hub == nullptr) return;
  const auto deadline = Clock::now() + Seconds(kFarewell_s);
  while (!state_->hub->finished() && Clock::now() < deadline) {
    std::this_thread::sleep_for(Seconds(0.002));
  }
}

}  // namespace osler
