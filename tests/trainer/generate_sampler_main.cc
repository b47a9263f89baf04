// The sampler's distributions, for tests that compare them with another program's: each line on
// stdin {"logits", "temperature", "top_k", "top_p"} → {"ids", "probabilities"} on stdout.
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "trainer/generate/sampler.h"

int main() {
  for (std::string text; std::getline(std::cin, text);) {
    const nlohmann::json line = nlohmann::json::parse(text);
    const auto logits = line.at("logits").get<std::vector<double>>();
    nlohmann::json out = {{"ids", nlohmann::json::array()},
                          {"probabilities", nlohmann::json::array()}};
    for (const osler::Candidate& candidate :
         osler::Candidates(logits, {.temperature = line.at("temperature").get<double>(),
                                   .top_k = line.at("top_k").get<int64_t>(),
                                   .top_p = line.at("top_p").get<double>()})) {
      out["ids"].push_back(candidate.id);
      out["probabilities"].push_back(candidate.probability);
    }
    std::cout << out.dump() << "\n";
  }
  return 0;
}
