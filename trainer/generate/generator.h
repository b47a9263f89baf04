// Continues prompts with a model: a batch of sequences, one token a pass each, over a cache of keys
// and values.
//
// A finished sequence leaves the batch and the next waiting one enters. Prompts enter by packed
// passes; samples of one prompt that enter together share its pass. A token depends on the
// sequence's own prompt, seed, prompt number and sample number, not on what else is in the batch,
// up to rounding: matrix products of another height may round differently (docs/generate.md).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/fs.h"
#include "model/block.h"
#include "model/parameter_store.h"
#include "model/registry.h"
#include "trainer/generate/sampler.h"

namespace osler {

// Whether Generated::log_probs is filled; that costs a softmax over the vocabulary a token.
enum class LogProbs { kNone, kChosen };

struct GenerationOptions {
  SamplingOptions sampling;
  int64_t max_new_tokens = 256;  // at most; the model's max_positions may end a sequence before
  int64_t min_new_tokens = 0;    // end ids cannot be chosen before
  int64_t samples = 1;           // continuations of each prompt
  int64_t batch = 8;             // sequences at a time
  uint64_t seed = 0;
  std::vector<int32_t> end_ids;  // any of them ends a sequence
  LogProbs log_probs = LogProbs::kNone;
};

struct SequenceId {
  size_t prompt;  // index in the list given
  int64_t sample;
};

enum class Finish {
  kEnd,     // an end id, which is the last of the ids
  kStop,    // the listener said so
  kLength,  // max_new_tokens or the model's positions
};

struct Generated {
  std::vector<int32_t> ids;
  std::vector<double> log_probs;  // of each id, as the model gives it: before any filter
  Finish finish = Finish::kLength;
};

// Hears of tokens as they come. Sequences interleave; each one's tokens come in order.
class GenerationListener {
 public:
  enum class Verdict { kContinue, kStop };
  virtual ~GenerationListener() = default;
  // Not called for an end id.
  virtual Verdict OnToken(const SequenceId& id, int32_t token) = 0;
  // The last call for a sequence. An error ends the generation.
  virtual absl::Status OnDone(const SequenceId& id, Generated generated) = 0;
};

struct GenerationStats {
  int64_t prompt_tokens = 0;   // that passed the model
  double prefill_seconds = 0;  // including the choice of each sequence's first token
  int64_t decoded_tokens = 0;  // new tokens after each sequence's first
  double decode_seconds = 0;
};

// Not thread-safe.
class Generator {
 public:
  static absl::StatusOr<std::unique_ptr<Generator>> Load(Fs& fs, const std::string& model_directory,
                                                         at::ScalarType dtype);

  // Data errors: no tokens, an id outside the vocabulary, no position left for a new token.
  absl::Status CheckPrompt(std::span<const int32_t> ids) const;

  // PRE: every prompt passes CheckPrompt. Config errors name an option; a model whose logits are
  // not numbers is a config error too.
  absl::StatusOr<GenerationStats> Generate(std::span<const std::vector<int32_t>> prompts,
                                           const GenerationOptions& options,
                                           GenerationListener& listener);

 private:
  Generator() = default;
  ModelSpec spec_;
  ParameterStore store_;
  Model model_;
};

// The ids that end an answer, by generation_config.json or else config.json; a number or a list
// there. Empty where neither names one. Config errors name file and key.
absl::StatusOr<std::vector<int32_t>> LoadEndIds(Fs& fs, const std::string& model_directory);

}  // namespace osler
