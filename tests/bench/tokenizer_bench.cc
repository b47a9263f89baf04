// How fast a tokenizer.json encodes, in CPU time of this one thread:
//   tokenizer_bench TOKENIZER.json TEXTS.jsonl [ROUNDS]
// TEXTS holds a JSON string a line. Prints {"bytes", "tokens", "seconds"} of the fastest round.
// scripts/bench/tokenizer.py runs it beside `tokenizers`.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "base/fs.h"
#include "data/tokenizer/tokenizer.h"

namespace osler {
namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return 1;
}

int Run(const char* tokenizer_path, const char* texts_path, int rounds) {
  const auto fs = MakePosixFs();
  const auto json = fs->ReadFile(tokenizer_path);
  if (!json.ok()) return Fail(json.status());
  const auto tokenizer = Tokenizer::Parse(*json, tokenizer_path);
  if (!tokenizer.ok()) return Fail(tokenizer.status());
  const auto lines = fs->ReadFile(texts_path);
  if (!lines.ok()) return Fail(lines.status());
  std::vector<std::string> texts;
  size_t bytes = 0;
  std::istringstream stream(*lines);
  for (std::string line; std::getline(stream, line);) {
    texts.push_back(nlohmann::json::parse(line).get<std::string>());
    bytes += texts.back().size();
  }
  double best = 1e300;
  size_t tokens = 0;
  for (int round = 0; round < rounds; ++round) {
    tokens = 0;
    const std::clock_t start = std::clock();
    for (const std::string& text : texts) {
      const auto encoding = (*tokenizer)->Encode(text, SpecialTokens::kAdd);
      if (!encoding.ok()) return Fail(encoding.status());
      tokens += encoding->ids.size();
    }
    best = std::min(best, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
  }
  std::printf("{\"bytes\": %zu, \"tokens\": %zu, \"seconds\": %.6f}\n", bytes, tokens, best);
  return 0;
}

}  // namespace
}  // namespace osler

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: tokenizer_bench TOKENIZER.json TEXTS.jsonl [ROUNDS]\n");
    return 2;
  }
  return osler::Run(argv[1], argv[2], argc > 3 ? std::atoi(argv[3]) : 3);
}
