#include "trainer/validation.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "configs/validate.h"
#include "trainer/step.h"

namespace osler {
namespace {

// The losses of all packs in order; this rank fills in those of its share.
struct PackLosses {
  at::Tensor sums_P, counts_P;  // double and int64, zero where another rank computes
};

// A reader's packs are measured so many at a time: a pipeline fills and drains once for each lot.
constexpr int64_t kRoundPacks = 64;

// This reader's packs of a round, those from global number `first` on.
absl::Status ReadPacks(PackStream& packs, const ReaderShare& share, int64_t first, int64_t end,
                       std::vector<Pack>& mine) {
  for (int64_t i = 0; i < kRoundPacks && first + share.index + i * share.count < end; ++i) {
    OSLER_ASSIGN_OR_RETURN(Pack pack, packs.Next());
    mine.push_back(std::move(pack));
  }
  return absl::OkStatus();
}

// All ranks take the same number of passes, so that none waits for another for ever.
absl::StatusOr<PackLosses> EvaluateShare(PackStream& packs, const ReaderShare& share,
                                         TrainStep& step, Communicator& world) {
  const int64_t end = packs.EpochStart(1).pack;
  PackLosses losses{at::zeros({end}, at::kDouble), at::zeros({end}, at::kLong)};
  for (int64_t first = 0; first < end; first += share.count * kRoundPacks) {
    std::vector<Pack> mine;  // fewer than passes where the packs end
    const int64_t passes = std::min(kRoundPacks, (end - first + share.count - 1) / share.count);
    OSLER_RETURN_IF_ERROR(AgreeOnStatus(world, ReadPacks(packs, share, first, end, mine)));
    const std::vector<LossSum> measured = step.Evaluate(mine, passes);
    for (size_t i = 0; i < mine.size(); ++i) {
      const int64_t g = first + share.index + static_cast<int64_t>(i) * share.count;
      losses.sums_P.mutable_data_ptr<double>()[g] = measured[i].sum;
      losses.counts_P.mutable_data_ptr<int64_t>()[g] = measured[i].count;
    }
  }
  return losses;
}

// Adds one by one, from the first: at::sum's order depends on the number of threads.
template <typename T>
T SumInOrder(const at::Tensor& x_P) {
  T sum = 0;
  for (int64_t i = 0; i < x_P.numel(); ++i) sum += x_P.const_data_ptr<T>()[i];
  return sum;
}

double Mean(const LossSum& loss) {
  return loss.sum / static_cast<double>(std::max<int64_t>(loss.count, 1));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Validation>> Validation::Open(Fs& fs, const config::Data& config,
                                                             const PlanOptions& plan,
                                                             const RecordEncoder& encoder,
                                                             int threads) {
  std::unique_ptr<Validation> validation(new Validation());
  validation->plan_ = plan;
  validation->plan_.order = Order::kFile;
  for (const config::ValidationSource& source : config.validation()) {
    OSLER_ASSIGN_OR_RETURN(auto data, DataSet::Open(fs, {{source.path()}}, encoder, threads));
    validation->sources_.push_back({ValidationName(source), std::move(data)});
  }
  return validation;
}

absl::StatusOr<ValidationLoss> Validation::Measure(TrainStep& step, const Mesh& mesh) const {
  Failpoint("validate");
  StreamOptions options;
  options.plan = plan_;
  options.share = ReaderOf(mesh);
  ValidationLoss result;
  LossSum total;
  for (const Source& source : sources_) {
    std::unique_ptr<PackStream> packs;
    OSLER_RETURN_IF_ERROR(AgreeOnStatus(mesh.world(), [&]() -> absl::Status {
      OSLER_ASSIGN_OR_RETURN(packs, PackStream::Open(*source.data, options));
      return absl::OkStatus();
    }()));
    PackLosses losses;
    OSLER_RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
      OSLER_ASSIGN_OR_RETURN(losses, EvaluateShare(*packs, options.share, step, mesh.world()));
      return absl::OkStatus();
    }));
    LossSum loss;
    OSLER_RETURN_IF_ERROR(CatchTorch([&] {
      SumLosses(mesh, losses.sums_P);
      SumLosses(mesh, losses.counts_P);
      loss = {SumInOrder<double>(losses.sums_P), SumInOrder<int64_t>(losses.counts_P)};
      return absl::OkStatus();
    }));
    if (sources_.size() > 1) result.sources.emplace_back(source.name, Mean(loss));
    total.sum += loss.sum;
    total.count += loss.count;
  }
  result.total = Mean(total);
  return result;
}

std::string Validation::digest() const {
  std::string digest;
  for (const Source& source : sources_) absl::StrAppend(&digest, source.data->digest());
  return digest;
}

}  // namespace osler
