// Runs a fuzz target on its seeds and on seeded random mutations of them, always the same for a
// given --seed.
//
//   config_fuzz [--seconds S] [--runs N] [--seed K] [--corpus DIR] [--replay N]
//
// Ends after S seconds (default 3) or N inputs, whichever comes first, and prints how many it ran.
// When the target crashes, takes 10 s or 2 GiB for one input, the number of the input stands on
// stderr: --replay writes that input to stdout and runs it alone.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "base/fs.h"
#include "base/philox.h"
#include "tests/fuzz/fuzz.h"

namespace osler {
namespace {

constexpr size_t kLongestInput = size_t{1} << 16;
constexpr rlim_t kMostMemory = rlim_t{2} << 30;
constexpr unsigned kMostSeconds = 10;  // for one input

struct Options {
  double seconds = 3;
  int64_t runs = int64_t{1} << 40;
  uint64_t seed = 1;
  int64_t replay = -1;
  std::string corpus;
};

// The draws of one input: a pure function of (seed, number of the input).
class Draws {
 public:
  Draws(uint64_t seed, uint64_t input) : key_(PhiloxKey(seed, "fuzz")), input_(input) {}
  // Uniform in [0, bound); 0 when bound is 0.
  size_t Below(size_t bound) { return bound == 0 ? 0 : PhiloxBits(key_, input_, next_++) % bound; }

 private:
  const uint64_t key_, input_;
  uint64_t next_ = 0;
};

// Bytes at which parsers break: signs, brackets, quotes, digits, boundaries of UTF-8 and of
// integers.
constexpr char kInteresting[] =
    "\0\x01\x7f\x80\xbf\xc0\xe2\xed\xf0\xff\n\r\t \"'\\{}[]:,-+.#&*!|>%@`0918eE~</";

// A number as text or as little-endian bytes that overflow something.
std::string ExtremeNumber(Draws& draws) {
  static const std::vector<std::string> kText = {"-1",
                                                 "0",
                                                 "00",
                                                 "1e999",
                                                 "-0.0",
                                                 "9223372036854775807",
                                                 "9223372036854775808",
                                                 "18446744073709551616",
                                                 "-9223372036854775809",
                                                 "4294967296",
                                                 "2147483648",
                                                 "nan",
                                                 "1e-400"};
  const size_t which = draws.Below(kText.size() + 4);
  if (which < kText.size()) return kText[which];
  const uint64_t value = ~uint64_t{0} >> draws.Below(64);
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &value, 8);
  return bytes;
}

void MutateOnce(std::string& input, const std::vector<std::string>& seeds, Draws& draws) {
  const size_t at = draws.Below(input.size() + 1);
  const size_t length = std::min(input.size() - at, 1 + draws.Below(size_t{1} << draws.Below(8)));
  const size_t action = draws.Below(9);
  if (at < input.size() && action == 0)
    input[at] = static_cast<char>(input[at] ^ (1 << draws.Below(8)));
  if (at < input.size() && action == 1)
    input[at] = kInteresting[draws.Below(sizeof kInteresting - 1)];
  if (action == 2) input.insert(at, 1, kInteresting[draws.Below(sizeof kInteresting - 1)]);
  if (action == 3) input.erase(at, length);
  if (action == 4) input.insert(draws.Below(input.size() + 1), input.substr(at, length));
  if (action == 5) input.resize(at);
  if (action == 6) {
    const std::string number = ExtremeNumber(draws);
    input.replace(at, std::min(input.size() - at, number.size()), number);
  }
  if (action == 7) input.insert(at, ExtremeNumber(draws));
  if (action == 8) {  // splice in a piece of a seed
    const std::string& other = seeds[draws.Below(seeds.size())];
    const size_t from = draws.Below(other.size() + 1);
    input.insert(at, other.substr(from, 1 + draws.Below(64)));
  }
}

// Input `number`: the seeds themselves first, then mutations of them.
std::string MakeInput(const std::vector<std::string>& seeds, uint64_t seed, uint64_t number) {
  if (number < seeds.size()) return seeds[number];
  Draws draws(seed, number);
  std::string input = seeds[draws.Below(seeds.size())];
  const size_t mutations = 1 + draws.Below(size_t{1} << draws.Below(5));
  for (size_t i = 0; i < mutations; ++i) MutateOnce(input, seeds, draws);
  if (input.size() > kLongestInput) input.resize(kLongestInput);
  return input;
}

void Run(const std::string& input) {
  // A copy of exactly this size on the heap, so that a sanitizer sees the first byte read past its
  // end.
  const std::unique_ptr<uint8_t[]> bytes(new uint8_t[input.size()]);
  alarm(kMostSeconds);
  std::copy(input.begin(), input.end(), bytes.get());
  LLVMFuzzerTestOneInput(bytes.get(), input.size());
}

bool ParseOptions(int argc, char** argv, Options& options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    bool fine = false;
    if (flag == "--seconds") fine = absl::SimpleAtod(value, &options.seconds);
    if (flag == "--runs") fine = absl::SimpleAtoi(value, &options.runs);
    if (flag == "--seed") fine = absl::SimpleAtoi(value, &options.seed);
    if (flag == "--replay") fine = absl::SimpleAtoi(value, &options.replay);
    if (flag == "--corpus") {
      options.corpus = value;
      fine = true;
    }
    if (!fine) return false;
  }
  return argc % 2 == 1;
}

// Set before each input, printed by the handler below; a signal handler can reach nothing else.
volatile int64_t running_input = -1;

void ReportCrash(int signal_number) {
  char text[96];
  const int n = std::snprintf(
      text, sizeof text, "fuzz: signal %d at input %lld; --replay %lld shows it\n", signal_number,
      static_cast<long long>(running_input), static_cast<long long>(running_input));
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, static_cast<size_t>(n));
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

// Crashes, hangs and exhausted memory all end in ReportCrash. The address sanitizer reserves
// terabytes of address space, so there the limit is ASan's own (hard_rss_limit_mb).
void ArmLimits() {
  for (const int fatal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM})
    signal(fatal, ReportCrash);
  std::set_new_handler([] { std::abort(); });
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  const rlimit limit = {kMostMemory, kMostMemory};
  setrlimit(RLIMIT_AS, &limit);
#endif
}

std::vector<std::string> AllSeeds(const std::string& corpus) {
  std::vector<std::string> seeds = FuzzSeeds();
  const std::unique_ptr<Fs> fs = MakePosixFs();
  if (corpus.empty() || !fs->IsDirectory(corpus)) return seeds;
  const auto names = fs->List(corpus);
  if (!names.ok()) return seeds;
  for (const std::string& name : *names) {
    if (auto text = fs->ReadFile(JoinPath(corpus, name)); text.ok())
      seeds.push_back(*std::move(text));
  }
  return seeds;
}

int Main(int argc, char** argv) {
  Options options;
  if (!ParseOptions(argc, argv, options)) {
    std::fprintf(stderr, "flags: --seconds S --runs N --seed K --corpus DIR --replay N\n");
    return 2;
  }
  const std::vector<std::string> seeds = AllSeeds(options.corpus);
  if (seeds.empty()) {
    std::fprintf(stderr, "fuzz: the target gives no seeds\n");
    return 1;
  }
  ArmLimits();
  if (options.replay >= 0) {
    const std::string input = MakeInput(seeds, options.seed, static_cast<uint64_t>(options.replay));
    std::fwrite(input.data(), 1, input.size(), stdout);
    std::fflush(stdout);
    running_input = options.replay;
    Run(input);
    return 0;
  }
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(options.seconds);
  int64_t done = 0;
  const auto seed_count = static_cast<int64_t>(seeds.size());
  for (; done < options.runs && (done < seed_count || Clock::now() < end); ++done) {
    running_input = done;
    Run(MakeInput(seeds, options.seed, static_cast<uint64_t>(done)));
  }
  std::printf("fuzz: %lld inputs from %zu seeds\n", static_cast<long long>(done), seeds.size());
  return 0;
}

}  // namespace
}  // namespace osler

int main(int argc, char** argv) { return osler::Main(argc, argv); }
