#include "trainer/tensorboard/event_writer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>

#include "base/digest.h"
#include "base/status_macros.h"
#include "trainer/tensorboard/event.pb.h"

namespace osler {
namespace {

constexpr std::string_view kPrefix = "events.out.tfevents.";
constexpr size_t kTimeDigits = 10;

template <typename T>
void AppendLittleEndian(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) out.push_back(static_cast<char>(value >> (8 * i) & 0xff));
}

// The rotation and constant of the TFRecord format: a checksum of data that holds checksums is
// weak.
uint32_t MaskedCrc(std::string_view data) {
  const uint32_t crc = Crc32c(data);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

tensorboard::Event NewEvent(int64_t step) {
  tensorboard::Event event;
  event.set_wall_time(
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
  event.set_step(step);
  return event;
}

std::string Record(const tensorboard::Event& event) { return TfRecord(event.SerializeAsString()); }

std::string HostName() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "localhost";
  return name.data();
}

// Later than the time in any earlier file's name: readers take files in the order of their names.
absl::StatusOr<int64_t> FileTime(Fs& fs, const std::string& directory) {
  int64_t time = std::chrono::duration_cast<std::chrono::seconds>(
                     std::chrono::system_clock::now().time_since_epoch())
                     .count();
  OSLER_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(directory));
  for (const std::string& name : names) {
    if (!name.starts_with(kPrefix)) continue;
    const std::string digits = name.substr(kPrefix.size(), kTimeDigits);
    int64_t earlier = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), earlier);
    time = std::max(time, earlier + 1);
  }
  return time;
}

}  // namespace

std::string TfRecord(std::string_view data) {
  std::string record;
  AppendLittleEndian(record, static_cast<uint64_t>(data.size()));
  AppendLittleEndian(record, MaskedCrc(record));
  record += data;
  AppendLittleEndian(record, MaskedCrc(data));
  return record;
}

absl::StatusOr<std::unique_ptr<EventWriter>> EventWriter::Open(Fs& fs, const std::string& directory,
                                                               int64_t first_step) {
  OSLER_RETURN_IF_ERROR(fs.MakeDirectories(directory));
  OSLER_ASSIGN_OR_RETURN(const int64_t time, FileTime(fs, directory));
  const std::string name =
      fmt::format("{}{:0{}}.{}.{}", kPrefix, time, kTimeDigits, HostName(), getpid());
  OSLER_ASSIGN_OR_RETURN(LogFile file, LogFile::Open(fs, JoinPath(directory, name), 0));
  std::unique_ptr<EventWriter> writer(new EventWriter(std::move(file)));
  tensorboard::Event version = NewEvent(0);
  version.set_file_version("brain.Event:2");
  tensorboard::Event start = NewEvent(first_step);
  start.mutable_session_log()->set_status(tensorboard::SessionLog::START);
  writer->file_.Append(Record(version) + Record(start));
  return writer;
}

void EventWriter::Scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values) {
  tensorboard::Event event = NewEvent(step);
  for (const auto& [tag, value] : values) {
    tensorboard::Summary::Value& point = *event.mutable_summary()->add_value();
    point.set_tag(tag);
    point.set_simple_value(static_cast<float>(value));
  }
  file_.Append(Record(event));
}

void EventWriter::Text(int64_t step, const std::string& tag, const std::string& markdown) {
  tensorboard::Event event = NewEvent(step);
  tensorboard::Summary::Value& value = *event.mutable_summary()->add_value();
  value.set_tag(tag);
  value.mutable_metadata()->mutable_plugin_data()->set_plugin_name("text");
  tensorboard::Tensor& tensor = *value.mutable_tensor();
  tensor.set_dtype(tensorboard::Tensor::DT_STRING);
  tensor.mutable_tensor_shape()->add_dim()->set_size(1);
  tensor.add_string_val(markdown);
  file_.Append(Record(event));
}

}  // namespace osler
