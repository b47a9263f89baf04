#include "checkpoint/export_files.h"

#include <array>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "checkpoint/dtype.h"
#include "checkpoint/export.h"
#include "checkpoint/file_kind.h"

namespace osler {
namespace {

// Weights of any format, and the state files of training libraries, most of which are pickles.
constexpr std::array<const char*, 20> kWeightSuffixes = {
    ".safetensors", ".bin",    ".pt",     ".pth",     ".ckpt", ".gguf",      ".ggml",
    ".pkl",         ".pickle", ".joblib", ".h5",      ".onnx", ".onnx_data", ".msgpack",
    ".npz",         ".npy",    ".tflite", ".mlmodel", ".nemo", ".tar"};

bool IsWeights(const std::string& name) {
  const std::string lower = absl::AsciiStrToLower(name);
  for (const char* suffix : kWeightSuffixes) {
    if (absl::EndsWith(lower, suffix) || absl::EndsWith(lower, std::string(suffix) + ".index.json"))
      return true;
  }
  return false;
}

// Pickle protocols 2 to 5 begin with 0x80 and the protocol; torch.save writes a ZIP archive around
// one.
bool LooksPickled(std::string_view data) {
  const bool bare = data.size() >= 2 && data[0] == '\x80' && data[1] >= 2 && data[1] <= 5;
  return bare ||
         (data.substr(0, 4) == "PK\x03\x04" && data.find("data.pkl") != std::string_view::npos);
}

absl::Status CopyFile(Fs& fs, const std::string& from, const std::string& to) {
  OSLER_ASSIGN_OR_RETURN(const auto mapping, fs.Map(from));
  if (LooksPickled(mapping->data())) {
    LogInfo("export leaves out {}: it is a pickle", Printable(from));
    return absl::OkStatus();
  }
  OSLER_ASSIGN_OR_RETURN(const auto file, fs.Open(to, OpenMode::kBulk));
  OSLER_RETURN_IF_ERROR(file->Append(mapping->data()));
  OSLER_RETURN_IF_ERROR(file->Sync());
  return file->Close();
}

}  // namespace

absl::Status CopySideFiles(Fs& fs, const std::string& base, const std::string& output,
                           const std::string& index_file) {
  OSLER_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(base));
  for (const std::string& name : names) {
    const std::string path = JoinPath(base, name);
    if (name == kExportMark || (name != index_file && IsWeights(name))) continue;
    if (!IsRegularFile(path)) {
      LogInfo("export leaves out {}: it is no regular file", Printable(path));
      continue;
    }
    OSLER_RETURN_IF_ERROR(CopyFile(fs, path, JoinPath(output, name)));
  }
  return absl::OkStatus();
}

}  // namespace osler
