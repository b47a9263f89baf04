#include "trainer/plan/block_memory.h"

#include <algorithm>

namespace osler {
namespace {

// What is made and freed, one after the other.
class Tape {
 public:
  explicit Tape(int64_t live = 0) : live_(live), peak_(live) {}
  void Make(int64_t bytes) { peak_ = std::max(peak_, live_ += bytes); }
  void Free(int64_t bytes) { live_ -= bytes; }
  void Pass(int64_t bytes) {  // made and freed again
    Make(bytes);
    Free(bytes);
  }
  int64_t live() const { return live_; }
  int64_t peak() const { return peak_; }

 private:
  int64_t live_, peak_;
};

// kMemo keeps attention's output alone; kGraphAgain has it from before.
enum class Keep { kNothing, kMemo, kGraph, kGraphAgain };

// One decoder layer (model/decoder/decoder_layer.cc). Names of members are those of its tensors:
// bytes of a value a row and column.
class Layer {
 public:
  Layer(const LayerShape& shape, const RowSizes& rows)
      : shape_(shape),
        rows_(rows),
        own_(rows.own_rows * shape.hidden * rows.element),
        all_(rows.rows * shape.hidden * rows.element),
        q_(rows.rows * shape.query * rows.element),
        k_(rows.rows * shape.key * rows.element),
        inner_(rows.rows * shape.inner * rows.element),
        norm_(rows.own_rows * rows.sum),
        q_norm_(shape.head_norms ? rows.rows * shape.query_heads * rows.sum : 0),
        k_norm_(shape.head_norms ? rows.rows * shape.key_heads * rows.sum : 0),
        lse_(rows.rows * shape.query_heads * rows.sum),
        q_sums_(q_ / rows.element * rows.sum),
        k_sums_(k_ / rows.element * rows.sum),
        keys_(2 * rows.seen_keys * shape.key * rows.element),
        sent_keys_(2 * rows.sent_keys * shape.key * rows.element),
        narrow_(rows.element < rows.sum),
        whole_mlp_(rows.mlp_chunk == 0 || rows.rows <= rows.mlp_chunk) {}

  BlockMemory Compute() const {
    BlockMemory memory;
    memory.output = own_;
    memory.forward = Forward(Keep::kNothing).peak();
    const Tape graph = Forward(Keep::kGraph);
    memory.forward_graph = graph.peak();
    memory.kept = graph.live();
    memory.backward = Backward(memory.kept).peak();
    memory.memo = q_ + lse_;
    memory.forward_memo = Forward(Keep::kMemo).peak();
    memory.forward_again = Forward(Keep::kGraphAgain).peak();
    memory.gradients = (shape_.matrix_elements() + shape_.vectors) * rows_.element;
    return memory;
  }

 private:
  // Everything but what is kept is freed where its last user is; locals when the function ends.
  Tape Forward(Keep keep) const {
    const bool graph = keep == Keep::kGraph || keep == Keep::kGraphAgain;
    Tape tape;
    tape.Make(own_ + norm_);  // normed
    ForwardAttention(tape, keep, graph);
    if (!graph || rows_.tensor) tape.Free(own_);
    if (!graph) tape.Free(norm_);
    if (shape_.output_norms) tape.Make(own_ + norm_);  // sum, of the normed output
    if (!shape_.output_norms) tape.Make(own_);         // sum
    tape.Make(own_ + norm_);                           // its norm
    ForwardMlp(tape, graph);
    tape.Make(own_ + (shape_.output_norms ? norm_ : 0));  // the layer's output
    const bool keeps_outputs = graph && shape_.output_norms;
    if (!keeps_outputs) tape.Free(2 * own_);      // attended, fed
    if (!graph || rows_.tensor) tape.Free(own_);  // normed sum: gathered rows are kept for it
    if (!graph) tape.Free(own_ + norm_ * (shape_.output_norms ? 3 : 1));  // sum, statistics
    return tape;
  }

  // Leaves `attended` [own rows], and what a graph keeps.
  void ForwardAttention(Tape& tape, Keep keep, bool graph) const {
    if (rows_.tensor) tape.Make(all_);
    tape.Make(2 * q_ + 2 * k_ + q_norm_ + k_norm_);  // projected, rotated
    tape.Make(k_);                                   // values
    if (!graph) tape.Free(q_norm_ + k_norm_);
    if (!graph || !shape_.head_norms) tape.Free(q_ + k_);
    if (keep != Keep::kGraphAgain) ForwardScores(tape);
    if (!graph) tape.Free(q_ + 2 * k_);
    if (keep == Keep::kNothing) tape.Free(lse_);
    tape.Make(all_);
    ForwardScatter(tape);
    if (keep == Keep::kNothing) tape.Free(q_);  // attention's output
    if (rows_.tensor && !graph) tape.Free(all_);
  }

  // Leaves attention's output and log-sum-exps.
  void ForwardScores(Tape& tape) const {
    if (rows_.ring) {  // sums, a rank's keys at hand and the next's on their way, one part's output
      tape.Make(q_sums_ + lse_);
      tape.Pass(2 * keys_ + q_sums_ + lse_ + rows_.forward_scratch);
      if (narrow_) tape.Make(q_);
      if (narrow_) tape.Free(q_sums_);
      return;
    }
    FetchKeys(tape);
    tape.Make(q_ + lse_);
    tape.Pass(rows_.forward_scratch);
    tape.Free(keys_);
  }

  // Leaves the keys that the rank's rows see; they come and go in buffers of their own.
  void FetchKeys(Tape& tape) const {
    tape.Make(2 * keys_ + sent_keys_);
    tape.Free(keys_ + sent_keys_);
  }

  // Leaves `fed` [own rows], and what a graph keeps.
  void ForwardMlp(Tape& tape, bool graph) const {
    if (rows_.tensor) tape.Make(all_);
    if (whole_mlp_) {
      tape.Make(3 * inner_ + all_);
      if (!graph) tape.Free(3 * inner_);
    } else {
      tape.Make(all_);
      tape.Pass(3 * ChunkInner() + ChunkRows());
    }
    ForwardScatter(tape);
    if (rows_.tensor && !graph) tape.Free(all_);
  }

  // From all rows to this rank's: a copy, which is summed, and its part.
  void ForwardScatter(Tape& tape) const {
    if (!rows_.tensor) return;
    tape.Make(all_ + own_);
    tape.Free(2 * all_);
  }

  // The caller holds the gradient of the output; parameter gradients stay to the end.
  Tape Backward(int64_t kept) const {
    Tape tape(kept);
    if (shape_.output_norms) {
      tape.Make(own_);
      tape.Free(own_ + norm_);  // fed
    }
    BackwardMlp(tape);
    tape.Make(own_);
    tape.Free(2 * own_ + norm_);  // gradient of the normed sum; the sum
    if (shape_.output_norms) {
      tape.Pass(own_);  // both ways back, summed
      tape.Make(own_);
      tape.Free(own_ + norm_);  // attended
    }
    BackwardAttention(tape);
    tape.Make(own_);
    return tape;
  }

  // From the gradient of the MLP's output (freed here unless the caller's) to its normed input's.
  void BackwardMlp(Tape& tape) const {
    const int64_t element = rows_.element;
    if (rows_.tensor) tape.Make(all_);
    if (rows_.tensor && shape_.output_norms) tape.Free(own_);
    if (whole_mlp_) {
      tape.Make(inner_ + Gradient("down_proj"));
      tape.Free(inner_);  // the product of gate and up
      FreeMlpGradient(tape);
      tape.Make(2 * inner_);
      tape.Free(3 * inner_);
      tape.Make(all_ + Gradient("up_proj"));
      tape.Free(inner_);
      tape.Make(all_ + Gradient("gate_proj"));
      tape.Free(inner_ + all_);
    } else {
      const int64_t weights = Gradient("down_proj") + Gradient("up_proj") + Gradient("gate_proj");
      tape.Make(weights / element * std::max(element, int64_t{4}) + all_);
      tape.Pass(5 * ChunkInner() + ChunkRows());
      if (element < 4) tape.Make(weights);
      if (element < 4) tape.Free(weights / element * 4);
      FreeMlpGradient(tape);
    }
    tape.Free(all_);  // the MLP's input
    BackwardGather(tape);
  }

  void FreeMlpGradient(Tape& tape) const {
    if (rows_.tensor) tape.Free(all_);
    if (!rows_.tensor && shape_.output_norms) tape.Free(own_);
  }

  // Leaves the gradient of the layer's normed input beside that of the sum.
  void BackwardAttention(Tape& tape) const {
    if (rows_.tensor) tape.Make(all_);
    tape.Make(q_ + Gradient("o_proj"));
    if (rows_.tensor) tape.Free(all_);
    if (shape_.output_norms) tape.Free(own_);
    BackwardScores(tape);
    tape.Make(all_ + Gradient("v_proj"));
    tape.Free(k_);
    tape.Pass(k_);  // rotated back
    if (shape_.head_norms) tape.Free(k_ + k_norm_);
    tape.Pass(q_);
    if (shape_.head_norms) tape.Free(q_ + q_norm_);
    tape.Make(all_ + Gradient("k_proj"));
    tape.Free(k_ + all_);
    tape.Make(all_ + Gradient("q_proj"));
    tape.Free(q_ + all_);
    tape.Free(all_);  // attention's input
    BackwardGather(tape);
  }

  // From the gradient of attention's output to those of q, k, v, summed in fp32 or wider.
  void BackwardScores(Tape& tape) const {
    if (rows_.ring) {
      // The sums for q; two ranks' keys; key gradients at home, made, going and coming; a part's.
      const int64_t key_sums = keys_ / rows_.element * rows_.sum;
      tape.Pass(2 * q_sums_ + 2 * keys_ + 5 * key_sums + rows_.backward_scratch);
      tape.Make(q_ + 2 * k_);
    } else if (keys_ > 0) {
      BackwardFetched(tape);
    } else {
      tape.Make(q_sums_ + 2 * k_sums_);
      tape.Pass(rows_.backward_scratch);
      if (narrow_) tape.Make(q_ + 2 * k_);
      if (narrow_) tape.Free(q_sums_ + 2 * k_sums_);
    }
    tape.Free(3 * q_ + 2 * k_ + lse_);  // the gradient given; q, k, v, the output
  }

  void BackwardFetched(Tape& tape) const {
    const int64_t key_sums = keys_ / rows_.element * rows_.sum;
    FetchKeys(tape);
    tape.Make(q_sums_ + key_sums);
    tape.Pass(rows_.backward_scratch);
    tape.Make(2 * k_sums_);  // of this rank's own keys
    tape.Pass(key_sums + sent_keys_ / rows_.element * rows_.sum);
    if (narrow_) tape.Make(q_ + 2 * k_);
    if (narrow_) tape.Free(q_sums_ + 2 * k_sums_);
    tape.Free(keys_ + key_sums);
  }

  void BackwardGather(Tape& tape) const {
    if (!rows_.tensor) return;
    tape.Make(all_ + own_);
    tape.Free(2 * all_);
  }

  int64_t Gradient(const char* matrix) const { return shape_.matrices.at(matrix) * rows_.element; }
  int64_t ChunkInner() const { return rows_.mlp_chunk * shape_.inner * rows_.element; }
  int64_t ChunkRows() const { return rows_.mlp_chunk * shape_.hidden * rows_.element; }

  const LayerShape& shape_;
  const RowSizes& rows_;
  const int64_t own_, all_, q_, k_, inner_, norm_, q_norm_, k_norm_, lse_;
  const int64_t q_sums_, k_sums_;
  const int64_t keys_, sent_keys_;  // and their values
  const bool narrow_;               // values are narrower than sums
  const bool whole_mlp_;
};

}  // namespace

BlockMemory LayerMemory(const LayerShape& shape, const RowSizes& rows) {
  return Layer(shape, rows).Compute();
}

BlockMemory EmbeddingMemory(int64_t width, const RowSizes& rows, int tensor_ranks) {
  const int64_t own = rows.own_rows * width * rows.element, all = tensor_ranks * own;
  BlockMemory memory{.output = own, .kept = own};
  // Rows looked up, among zeros, summed over the ranks; or looked up and scaled.
  memory.forward = tensor_ranks > 1 ? 3 * all + 2 * own : 2 * own;
  memory.forward_graph = memory.forward_memo = memory.forward_again = memory.forward;
  memory.backward = own + (tensor_ranks > 1 ? all + own : own);
  return memory;  // gradients are sparse: the rows just counted
}

BlockMemory NormMemory(int64_t width, const RowSizes& rows) {
  const int64_t own = rows.own_rows * width * rows.element, statistic = rows.own_rows * rows.sum;
  return {.output = own,
          .kept = own + statistic,
          .forward = own + statistic,
          .forward_graph = own + statistic,
          .backward = 2 * own + statistic,
          .forward_memo = own + statistic,
          .forward_again = own + statistic,
          .gradients = width * rows.element};
}

}  // namespace osler
