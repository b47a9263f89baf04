// The plan of the sample stream: which records make up pack number g. A pure function of (data
// digests, lengths, seed, options); never of how many ranks or threads read it.
//
// Samples: source k contributes its records in the order of a keyed permutation that changes each
// time the source begins anew (or in file order); sources are mixed so that each stays within one
// sample of its weight's share (data/mixture.h). An epoch is as many samples as all sources of
// positive weight hold. Windows of kWindowSamples consecutive samples, cut at epoch ends, are
// packed on their own: best-fit decreasing and a keyed shuffle of the packs, or, without shuffling,
// next-fit in file order. Packs never cross windows. docs/data-order.md has the details.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/lengths.h"

namespace osler {

inline constexpr int64_t kWindowSamples = 4096;

enum class Packing { kOff, kOn };
enum class Order { kFile, kShuffled };
enum class LongRecordPolicy { kTruncate, kSplit, kDrop };

struct PlanOptions {
  int64_t sequence_length = 512;
  uint64_t seed = 0;
  Packing packing = Packing::kOn;
  Order order = Order::kShuffled;
  LongRecordPolicy long_records = LongRecordPolicy::kTruncate;
};

struct PlanSource {
  const Lengths* lengths = nullptr;  // must outlive the plan
  std::string digest;                // of the data: part of the permutation's key
  double weight = 1;
};

// A piece of a record: tokens [begin, begin + length).
struct Piece {
  int32_t source = 0;
  int64_t record = 0;
  int32_t begin = 0;
  int32_t length = 0;
  bool operator==(const Piece&) const = default;
};

using PackPlan = std::vector<Piece>;

// Where the stream stands: 200 bytes at most when serialised (8 sources), whatever the data or the
// world.
struct Cursor {
  int64_t pack = 0;  // running global number of the next pack, from 0
  int64_t epoch = 0;
  int64_t window = 0;  // within the epoch
  int64_t pack_in_window = 0;
  std::vector<int64_t> taken;  // samples taken from each source before this window
  bool operator==(const Cursor&) const = default;
  std::string Serialize() const;  // "pack,epoch,window,pack_in_window:taken,…", decimal
  // Data error for anything that Serialize does not write.
  static absl::StatusOr<Cursor> Parse(const std::string& text);
};

// Over one pass of every source, for the report to the user. `dropped` counts records of no tokens,
// too.
struct PlanCounts {
  int64_t records = 0, truncated = 0, split = 0, dropped = 0, tokens = 0;
  int64_t taught = 0;   // records with a target that training sees
  int64_t cut_off = 0;  // records whose targets all stand behind the cut
};

// Walks the packs in order. Not thread-safe.
class Plan {
 public:
  // Data error if a source of positive weight holds nothing to train on; config error for weights
  // or a sequence length that make no sense.
  static absl::StatusOr<std::unique_ptr<Plan>> Create(std::vector<PlanSource> sources,
                                                      PlanOptions options);
  ~Plan();
  PackPlan Next();            // never ends: data wraps into new epochs
  void SkipTo(int64_t pack);  // on to this running number. PRE: Position().pack is no higher
  Cursor Position() const;    // of the pack Next() will return
  absl::Status Seek(const Cursor& cursor);  // a data error if the cursor does not fit this plan
  // The cursor at the start of epoch `epoch`; its `pack` is the true running number. Cost:
  // epochs × windows.
  Cursor EpochStart(int64_t epoch);
  PlanCounts counts() const;

 private:
  struct State;
  explicit Plan(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace osler
