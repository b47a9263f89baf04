// The loss on held-out data.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/fs.h"
#include "configs/schema/train.pb.h"
#include "data/encoder.h"
#include "data/loader.h"
#include "parallel/mesh.h"

namespace osler {

class TrainStep;

// Per target token.
struct ValidationLoss {
  double total = 0;                                     // over all sources together
  std::vector<std::pair<std::string, double>> sources;  // by name, when there are several
};

// The sources of data.validation. Not thread-safe.
class Validation {
 public:
  // `plan` says how records become packs (its order does not count). `encoder` must outlive it.
  static absl::StatusOr<std::unique_ptr<Validation>> Open(Fs& fs, const config::Data& config,
                                                          const PlanOptions& plan,
                                                          const RecordEncoder& encoder,
                                                          int threads);

  // One pass over every record of every source, in file order, one pack at a time. The mesh's
  // readers share the packs: each pack's loss is computed by one of them, and the losses are added
  // in the order of packs, so the result has the same bits on every rank and for any number of
  // readers.
  absl::StatusOr<ValidationLoss> Measure(TrainStep& step, const Mesh& mesh) const;

  // Of all sources: losses compare only under the same one.
  std::string digest() const;

 private:
  struct Source {
    std::string name;
    std::unique_ptr<DataSet> data;
  };
  Validation() = default;

  std::vector<Source> sources_;
  PlanOptions plan_;
};

}  // namespace osler
