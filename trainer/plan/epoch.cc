#include "trainer/plan/epoch.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "data/encoder.h"
#include "data/lengths.h"
#include "data/plan.h"
#include "data/shard.h"
#include "data/shard_format.h"
#include "trainer/run_layout.h"

namespace osler {
namespace {

struct Source {
  std::unique_ptr<ShardReader> shards;
  Lengths lengths;
  double weight = 1;
};

absl::StatusOr<std::vector<Source>> OpenSources(Fs& fs, const config::Train& config,
                                                PlanEpoch& epoch) {
  std::vector<Source> sources;
  int64_t records = 0;
  for (const config::DataSource& one : config.data().train()) {
    Source source{.shards = nullptr, .lengths = {}, .weight = one.weight()};
    OSLER_ASSIGN_OR_RETURN(source.shards, ShardReader::Open(fs, one.path()));
    records += source.shards->size();
    sources.push_back(std::move(source));
  }
  epoch.records = records;
  return sources;
}

absl::Status NotMeasured(const ShardReader& shards) {
  return absl::NotFoundError(absl::StrCat(
      shards.directory(),
      " has no token lengths for this model yet: `osler data build --model DIR` or the first "
      "training measures them"));
}

absl::Status FindAllLengths(Fs& fs, const config::Train& config, const ModelSpec& spec,
                            std::vector<Source>& sources) {
  // A large tokenizer takes most of a second: it is not read for nothing.
  for (const Source& source : sources) {
    if (!fs.IsDirectory(JoinPath(source.shards->directory(), kLengthsDirectory)))
      return NotMeasured(*source.shards);
  }
  OSLER_ASSIGN_OR_RETURN(
      const auto encoder,
      RecordEncoder::Create(fs, config.model().path(), EncoderOptionsOf(config, spec.vocab_size)));
  for (Source& source : sources) {
    std::optional<Lengths> lengths = FindLengths(fs, *source.shards, *encoder);
    if (!lengths.has_value()) return NotMeasured(*source.shards);
    source.lengths = *std::move(lengths);
  }
  return absl::OkStatus();
}

// A piece's first token is no target: nothing stands before it.
int64_t TargetsOf(const Piece& piece, const std::vector<Source>& sources) {
  const RecordLength& record =
      sources[static_cast<size_t>(piece.source)].lengths[static_cast<size_t>(piece.record)];
  if (record.last_target == 0) return 0;
  const int64_t first = std::max<int64_t>(record.first_target, piece.begin + int64_t{1});
  const int64_t last =
      std::min<int64_t>(record.last_target, piece.begin + piece.length - int64_t{1});
  return std::max<int64_t>(0, last - first + 1);
}

// Walks the packs of the first epoch.
absl::Status CountPacks(const config::Train& config, const std::vector<Source>& sources,
                        const Model& model, PlanEpoch& epoch) {
  std::vector<PlanSource> planned;
  for (const Source& source : sources)
    planned.push_back({&source.lengths, source.shards->digest(), source.weight});
  OSLER_ASSIGN_OR_RETURN(const auto plan, Plan::Create(std::move(planned), PlanOptionsOf(config)));
  int64_t packs = 0, tokens = 0, targets = 0;
  std::vector<int64_t> seen(model.layer_kinds.size());
  for (; plan->Position().epoch == 0; ++packs) {
    for (const Piece& piece : plan->Next()) {
      tokens += piece.length;
      targets += TargetsOf(piece, sources);
      for (size_t k = 0; k < seen.size(); ++k)
        seen[k] += KeysSeen(piece.length, model.layer_kinds[k].window);
    }
  }
  epoch.packs = packs;
  epoch.tokens = tokens;
  epoch.target_share = static_cast<double>(targets) / static_cast<double>(tokens);
  for (size_t k = 0; k < seen.size(); ++k)
    epoch.keys[k] = static_cast<double>(seen[k]) / static_cast<double>(tokens);
  return absl::OkStatus();
}

}  // namespace

PlanEpoch CountEpoch(Fs& fs, const config::Train& config, const PlanModel& model) {
  PlanEpoch epoch;
  epoch.keys = FullSequenceKeys(model.model, config.data().sequence_length());
  const auto count = [&]() -> absl::Status {
    OSLER_ASSIGN_OR_RETURN(std::vector<Source> sources, OpenSources(fs, config, epoch));
    OSLER_RETURN_IF_ERROR(FindAllLengths(fs, config, model.spec, sources));
    return CountPacks(config, sources, model.model, epoch);
  };
  if (const absl::Status status = count(); !status.ok()) epoch.note = std::string(status.message());
  return epoch;
}

}  // namespace osler
