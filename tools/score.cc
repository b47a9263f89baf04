#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "data/tokenizer/tokenizer.h"
#include "tools/commands.h"
#include "tools/jsonl.h"
#include "trainer/scorer.h"

namespace osler {
namespace {

constexpr size_t kBatchTokens = 2048;  // scored in one forward pass

struct ScoreFlags {
  std::string model, input, output, precision = "fp32";
};

at::ScalarType DtypeOf(const std::string& precision) {
  if (precision == "fp64") return at::kDouble;
  return precision == "bf16" ? at::kBFloat16 : at::kFloat;
}

// Reads lines, scores them in batches, writes one line for each in order.
class ScoreJob {
 public:
  ScoreJob(Fs& fs, const ScoreFlags& flags, Scorer& scorer, OutputFile& output)
      : fs_(fs), flags_(flags), scorer_(scorer), output_(output) {}

  absl::Status Add(const nlohmann::json& line) {
    OSLER_ASSIGN_OR_RETURN(std::vector<int32_t> ids, IdsOf(line));
    if (ids.empty()) return DataError("no tokens to score; give at least one id");
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] >= 0 && ids[i] < scorer_.vocab_size()) continue;
      return DataError(absl::StrCat("id ", ids[i], " at position ", i,
                                    " is not in the model's vocabulary of ", scorer_.vocab_size()));
    }
    waiting_tokens_ += ids.size();
    waiting_.push_back(std::move(ids));
    return waiting_tokens_ >= kBatchTokens ? Flush() : absl::OkStatus();
  }

  absl::Status Flush() {
    if (waiting_.empty()) return absl::OkStatus();
    OSLER_ASSIGN_OR_RETURN(const auto log_probs, scorer_.LogProbs(waiting_));
    for (size_t i = 0; i < waiting_.size(); ++i) {
      OSLER_RETURN_IF_ERROR(
          output_.AppendLine({{"logprobs", log_probs[i]}, {"tokens", waiting_[i].size()}}));
    }
    done_ += static_cast<int64_t>(waiting_.size());
    progress_.Update(done_);
    waiting_.clear();
    waiting_tokens_ = 0;
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<std::vector<int32_t>> IdsOf(const nlohmann::json& line) {
    if (line.contains("images") && !line["images"].empty()) {
      return DataError("\"images\" given, but this model reads text only");
    }
    if (const auto ids = line.find("input_ids"); ids != line.end()) return ReadIds(*ids);
    const auto prompt = line.find("prompt"), completion = line.find("completion");
    if (prompt == line.end() || completion == line.end() || !prompt->is_string() ||
        !completion->is_string()) {
      return DataError("want {\"input_ids\": […]} or {\"prompt\": \"…\", \"completion\": \"…\"}");
    }
    if (tokenizer_ == nullptr) {
      OSLER_ASSIGN_OR_RETURN(tokenizer_, Tokenizer::Load(fs_, flags_.model));
    }
    std::vector<int32_t> all =
        tokenizer_->Encode(prompt->get_ref<const std::string&>(), SpecialTokens::kAdd).ids;
    const Encoding tail =
        tokenizer_->Encode(completion->get_ref<const std::string&>(), SpecialTokens::kNone);
    all.insert(all.end(), tail.ids.begin(), tail.ids.end());
    return all;
  }

  Fs& fs_;
  const ScoreFlags& flags_;
  Scorer& scorer_;
  OutputFile& output_;
  std::unique_ptr<Tokenizer> tokenizer_;  // only prompts need one
  std::vector<std::vector<int32_t>> waiting_;
  size_t waiting_tokens_ = 0;
  int64_t done_ = 0;
  Progress progress_{"scoring", 0, "lines"};
};

absl::Status Score(Fs& fs, const ScoreFlags& flags) {
  OSLER_ASSIGN_OR_RETURN(const auto scorer,
                         Scorer::Load(fs, flags.model, DtypeOf(flags.precision)));
  OSLER_ASSIGN_OR_RETURN(const auto output, OutputFile::Create(fs, flags.output));
  ScoreJob job(fs, flags, *scorer, *output);
  OSLER_RETURN_IF_ERROR(ForEachJsonLine(
      fs, flags.input, [&](const nlohmann::json& line, int64_t) { return job.Add(line); }));
  OSLER_RETURN_IF_ERROR(job.Flush());
  return output->Commit();
}

}  // namespace

void AddScoreCommand(CLI::App& app, Fs& fs, Action& action) {
  auto flags = std::make_shared<ScoreFlags>();
  CLI::App* command = app.add_subcommand("score", "Log-probability of every token of every line");
  command->footer(
      "Lines {\"input_ids\": […]} or {\"prompt\": …, \"completion\": …} → {\"logprobs\": [n − 1 "
      "values], \"tokens\": n}\n"
      "where logprobs[t] is log p(token t + 1 | tokens up to t).\n"
      "Example: osler score --model models/visits --input in.jsonl --output out.jsonl");
  command->add_option("--model", flags->model, "Hugging Face model directory")->required();
  command->add_option("--input", flags->input, "JSON lines to score")->required();
  command->add_option("--output", flags->output, "JSON lines to write")->required();
  command->add_option("--precision", flags->precision, "arithmetic")
      ->check(CLI::IsMember({"fp32", "fp64", "bf16"}))
      ->capture_default_str();
  command->callback([&fs, &action, flags] { action = [&fs, flags] { return Score(fs, *flags); }; });
}

}  // namespace osler
