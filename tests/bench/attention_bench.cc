// Interval attention beside ATen's attention on the CPU, forward and backward in one process:
//
//   attention_bench [--masks packed,causal,window] [--types fp32,bf16] [--widths 64,128,256]
//                   [--repeats 5] [--heads 8] [--key-heads 2] [--peers 1] [--dense 1]
//
// Peers, interleaved with ours: ATen's flash kernel once a document (or, under a window, once a
// chunk of rows with the chunk's mask), on a padded batch of the documents, and once over
// everything with a dense mask. The time of making their masks, of padding and of repeating heads
// is not counted. GFLOP/s are those of the pairs that the mask lets through: 4·D·H·A forward, 2.5
// times that backward.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/cpu_isa.h"
#include "kernels/interval_attention.h"
#include "kernels/interval_attention_cpu.h"

namespace osler {
namespace {

struct Flags {
  std::map<std::string, std::string> values = {{"masks", "packed,causal,window"},
                                               {"types", "fp32,bf16"},
                                               {"widths", "64,128,256"},
                                               {"repeats", "5"},
                                               {"heads", "8"},
                                               {"key-heads", "2"},
                                               {"peers", "1"},
                                               {"dense", "1"}};

  std::vector<std::string> List(const std::string& name) const {
    std::vector<std::string> items;
    std::stringstream stream(values.at(name));
    for (std::string item; std::getline(stream, item, ',');) items.push_back(item);
    return items;
  }
  int64_t Number(const std::string& name) const { return std::stoll(values.at(name)); }
};

struct Setting {
  std::string mask_name;
  std::vector<int32_t> starts;
  int64_t length;
  std::optional<int64_t> window;
};

Setting SettingOf(const std::string& name) {
  if (name == "packed") return {name, {0, 210, 1280, 1601, 1693, 2545, 2950, 3608}, 4096, {}};
  if (name == "causal") return {name, {0}, 4096, {}};
  if (name == "window") return {name, {0}, 8192, 1024};
  std::fprintf(stderr, "unknown mask %s: packed, causal or window\n", name.c_str());
  std::exit(2);
}

struct Tensors {
  at::Tensor q_THD, k_SHD, v_SHD, grad_THD;
};

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Timed(const std::function<void()>& body) {
  const double start = Seconds();
  body();
  return Seconds() - start;
}

// [n, H, D] rows from `from` on as [1, H, n, D].
at::Tensor Batch(const at::Tensor& x_THD, int64_t from, int64_t n) {
  return x_THD.narrow(0, from, n).transpose(0, 1).unsqueeze(0);
}

struct Pass {
  double forward = 0, backward = 0;
  double total() const { return forward + backward; }
};

// One call of ATen's kernel on [B, H, L, D] and its backward.
void AtenCall(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& grad,
              bool causal, const std::optional<at::Tensor>& mask, Pass& pass) {
  at::Tensor out, lse;
  pass.forward += Timed([&] {
    std::tie(out, lse) =
        at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, 0, causal, mask, {});
  });
  pass.backward += Timed([&] {
    at::_scaled_dot_product_flash_attention_for_cpu_backward(grad, q, k, v, out, lse, 0, causal,
                                                             mask, {});
  });
}

Pass Ours(const Tensors& x, const MaskIntervals& mask) {
  const double scale = 1 / std::sqrt(static_cast<double>(x.q_THD.size(2)));
  const IntervalAttentionInput input{x.q_THD, x.k_SHD, x.v_SHD, mask, {.scale = scale}};
  AttentionOutput output;
  Pass pass;
  pass.forward = Timed([&] { output = IntervalAttentionForwardCpu(input, BestCpuIsa()); });
  pass.backward = Timed([&] {
    IntervalAttentionBackwardCpu({x.grad_THD, {}}, input, output, BestCpuIsa());
  });
  return pass;
}

Pass Looped(const Tensors& x, const Setting& setting) {
  Pass pass;
  for (size_t d = 0; d < setting.starts.size(); ++d) {
    const int64_t from = setting.starts[d];
    const int64_t end = d + 1 < setting.starts.size() ? setting.starts[d + 1] : setting.length;
    AtenCall(Batch(x.q_THD, from, end - from), Batch(x.k_SHD, from, end - from),
             Batch(x.v_SHD, from, end - from), Batch(x.grad_THD, from, end - from), true, {}, pass);
  }
  return pass;
}

// Causal attention on documents padded at their ends needs no mask: padded rows are thrown away.
Pass Batched(const Tensors& x, const Setting& setting) {
  std::vector<at::Tensor> q, k, v, grad;
  for (size_t d = 0; d < setting.starts.size(); ++d) {
    const int64_t from = setting.starts[d];
    const int64_t end = d + 1 < setting.starts.size() ? setting.starts[d + 1] : setting.length;
    q.push_back(x.q_THD.narrow(0, from, end - from));
    k.push_back(x.k_SHD.narrow(0, from, end - from));
    v.push_back(x.v_SHD.narrow(0, from, end - from));
    grad.push_back(x.grad_THD.narrow(0, from, end - from));
  }
  const auto pad = [](const std::vector<at::Tensor>& parts) {
    return at::pad_sequence(parts, true).transpose(1, 2);
  };
  Pass pass;
  AtenCall(pad(q), pad(k), pad(v), pad(grad), true, {}, pass);
  return pass;
}

// Rows [from, from + rows) under the window with the keys they see; 0 where seen.
at::Tensor BandMask(int64_t rows, int64_t keys, int64_t before, int64_t window,
                    at::ScalarType dtype) {
  const at::Tensor row = at::arange(rows).unsqueeze(1) + before, key = at::arange(keys);
  const at::Tensor seen = (key <= row).logical_and(key > row - window);
  return at::zeros({rows, keys}, dtype)
      .masked_fill(seen.logical_not(), -std::numeric_limits<double>::infinity());
}

Pass Chunked(const Tensors& x, const Setting& setting, int64_t chunk) {
  Pass pass;
  const auto sums = x.k_SHD.options().dtype(at::kFloat);
  const at::Tensor grad_k = at::zeros(x.k_SHD.sizes(), sums), grad_v = at::zeros_like(grad_k);
  for (int64_t from = 0; from < setting.length; from += chunk) {
    const int64_t first = std::max<int64_t>(0, from - *setting.window + 1),
                  keys = from + chunk - first;
    const at::Tensor mask =
        BandMask(chunk, keys, from - first, *setting.window, x.q_THD.scalar_type());
    const at::Tensor q = Batch(x.q_THD, from, chunk), k = Batch(x.k_SHD, first, keys),
                     v = Batch(x.v_SHD, first, keys), grad = Batch(x.grad_THD, from, chunk);
    at::Tensor out, lse;
    pass.forward += Timed([&] {
      std::tie(out, lse) =
          at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, 0, false, mask, {});
    });
    pass.backward += Timed([&] {
      const auto [gq, gk, gv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          grad, q, k, v, out, lse, 0, false, mask, {});
      grad_k.narrow(0, first, keys).add_(gk.squeeze(0).transpose(0, 1));
      grad_v.narrow(0, first, keys).add_(gv.squeeze(0).transpose(0, 1));
    });
  }
  return pass;
}

Pass Dense(const Tensors& x, const at::Tensor& mask) {
  const int64_t n = x.q_THD.size(0);
  Pass pass;
  AtenCall(Batch(x.q_THD, 0, n), Batch(x.k_SHD, 0, n), Batch(x.v_SHD, 0, n),
           Batch(x.grad_THD, 0, n), false, mask, pass);
  return pass;
}

int64_t StatusKilobytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word == key) {
      int64_t value = 0;
      status >> value;
      return value;
    }
  }
  return 0;
}

// Growth of the resident set during the call, results included.
double PeakMiB(const std::function<void()>& body) {
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << 5;
  const int64_t before = StatusKilobytes("VmRSS:");
  body();
  return static_cast<double>(StatusKilobytes("VmHWM:") - before) / 1024;
}

Pass Fastest(const std::vector<Pass>& passes) {
  return *std::min_element(passes.begin(), passes.end(),
                           [](const Pass& a, const Pass& b) { return a.total() < b.total(); });
}

struct Peer {
  std::string name;
  std::function<Pass()> run;
  int64_t repeats;
  std::vector<Pass> passes;
};

std::vector<Peer> PeersOf(const Tensors& x, const Setting& setting, const Flags& flags) {
  const int64_t repeats = flags.Number("repeats");
  std::vector<Peer> peers;
  if (setting.window) {
    for (const int64_t chunk : {256, 512, 1024}) {
      peers.push_back({"chunks of " + std::to_string(chunk),
                       [&x, &setting, chunk] { return Chunked(x, setting, chunk); },
                       repeats,
                       {}});
    }
    peers.push_back({"causal, no window", [&] { return Looped(x, setting); }, 1, {}});
  } else {
    peers.push_back({"looped", [&] { return Looped(x, setting); }, repeats, {}});
    if (setting.starts.size() > 1) {
      peers.push_back({"batched", [&] { return Batched(x, setting); }, repeats, {}});
    }
  }
  return peers;
}

void PrintRow(const Setting& setting, const std::string& type, int64_t width, double flops,
              const Pass& ours, const std::vector<Peer>& peers, double dense, double peak_mib,
              double tensor_mib) {
  std::string best_name = "-";
  Pass best{1e9, 0};
  for (const Peer& peer : peers) {
    if (const Pass pass = Fastest(peer.passes); pass.total() < best.total()) {
      best = pass;
      best_name = peer.name;
    }
  }
  std::printf(
      "%-7s %-5s %4ld  %8.1f %6.0f %6.0f %6.0f  %8.1f %6.0f %6.0f %6.0f  %-18s %5.2f  %7.2f  %6.1f "
      "%6.1f\n",
      setting.mask_name.c_str(), type.c_str(), width, 1e3 * ours.total(),
      flops / ours.forward / 1e9, 2.5 * flops / ours.backward / 1e9,
      3.5 * flops / ours.total() / 1e9, 1e3 * best.total(), flops / best.forward / 1e9,
      2.5 * flops / best.backward / 1e9, 3.5 * flops / best.total() / 1e9, best_name.c_str(),
      best.total() / ours.total(), dense / ours.total(), peak_mib, tensor_mib);
  std::fflush(stdout);
}

void RunRow(const Setting& setting, const std::string& type, int64_t width, const Flags& flags) {
  const int64_t heads = flags.Number("heads"), key_heads = flags.Number("key-heads");
  const at::ScalarType dtype = type == "bf16" ? at::kBFloat16 : at::kFloat;
  const auto draw = [&](int64_t h) { return at::randn({setting.length, h, width}).to(dtype); };
  const Tensors x{draw(heads), draw(key_heads), draw(key_heads), draw(heads)};
  const MaskIntervals mask =
      CausalDocumentIntervals(setting.starts, setting.length, setting.window);
  const double area = (mask.hi_T - mask.lo_T).sum().item<double>();
  const double flops = 4.0 * static_cast<double>(width * heads) * area;

  const double peak = PeakMiB([&] { Ours(x, mask); });
  std::vector<Peer> peers;
  if (flags.Number("peers") != 0) peers = PeersOf(x, setting, flags);
  for (Peer& peer : peers) peer.run();
  std::vector<Pass> ours;
  for (int64_t i = 0; i < flags.Number("repeats"); ++i) {
    ours.push_back(Ours(x, mask));
    for (Peer& peer : peers) {
      if (i < peer.repeats) peer.passes.push_back(peer.run());
    }
  }
  double dense = 0;
  if (flags.Number("dense") != 0) {
    const at::Tensor keys = at::arange(setting.length, at::kInt).unsqueeze(0);
    const at::Tensor seen =
        (keys >= mask.lo_T.unsqueeze(1)).logical_and(keys < mask.hi_T.unsqueeze(1));
    const at::Tensor bias =
        at::zeros({setting.length, setting.length}, dtype)
            .masked_fill(seen.logical_not(), -std::numeric_limits<double>::infinity());
    dense = Dense(x, bias).total();
  }
  const double tensor_mib =
      static_cast<double>(x.q_THD.numel() * x.q_THD.element_size()) / (1 << 20);
  PrintRow(setting, type, width, flops, Fastest(ours), peers, dense, peak, tensor_mib);
}

int Main(int argc, char** argv) {
  Flags flags;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = std::strncmp(argv[i], "--", 2) == 0 ? argv[i] + 2 : "";
    if (flags.values.count(name) == 0) {
      std::fprintf(stderr, "unknown flag %s\n", argv[i]);
      return 2;
    }
    flags.values[name] = argv[i + 1];
  }
  const c10::InferenceMode inference;
  at::manual_seed(1);
  std::printf("isa %s, %d threads, %s query heads, %s key heads, fastest of %s\n",
              CpuIsaName(BestCpuIsa()), at::get_num_threads(), flags.values["heads"].c_str(),
              flags.values["key-heads"].c_str(), flags.values["repeats"].c_str());
  std::printf(
      "                    ---------- ours ----------    -------- ATen, fastest "
      "------------------------  ATen/ours dense/ours\n");
  std::printf(
      "mask    type   dim        ms    fwd    bwd   both        ms    fwd    bwd   both  which     "
      "         ratio    ratio  +MiB  q MiB   (GFLOP/s)\n");
  for (const std::string& mask : flags.List("masks")) {
    for (const std::string& type : flags.List("types")) {
      for (const std::string& width : flags.List("widths")) {
        RunRow(SettingOf(mask), type, std::stoll(width), flags);
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace osler

int main(int argc, char** argv) { return osler::Main(argc, argv); }
