#include "checkpoint/safetensors.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>

#include <cstring>

#include "base/digest.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::TempDir;

// The bytes of a file with this header and this many bytes of data.
std::string FileOf(const std::string& header, size_t data, int64_t claimed = -1) {
  const uint64_t length = claimed < 0 ? header.size() : static_cast<uint64_t>(claimed);
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data, '\1');
}

class InMemory final : public MappedFile {
 public:
  explicit InMemory(std::string_view data) : data_(data) {}
  std::string_view data() const override { return data_; }

 private:
  const std::string data_;
};

class SafetensorsTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::shared_ptr<const SafetensorsFile>> OpenBytes(std::string_view bytes) {
    return SafetensorsFile::Parse(path_, std::make_shared<InMemory>(bytes));
  }
  absl::StatusOr<std::shared_ptr<const SafetensorsFile>> OpenHeader(const std::string& header,
                                                                    size_t data) {
    return OpenBytes(FileOf(header, data));
  }

  TempDir directory_;
  const std::string path_ = directory_.File("attack.safetensors");
  std::unique_ptr<Fs> fs_ = MakePosixFs();
};

TEST_F(SafetensorsTest, RoundTripKeepsValuesOrderAndMetadata) {
  const at::Tensor a = at::arange(6, at::kFloat).view({2, 3});
  const at::Tensor b = at::full({}, 7, at::kLong), none = at::empty({0, 4}, at::kBFloat16);
  ASSERT_OK_AND_ASSIGN(
      const WrittenFile written,
      WriteSafetensors(*fs_, path_, {ToWrite("z", a), ToWrite("b\"\n", b), ToWrite("a", none)},
                       {{"format", "pt"}, {"kéy", "välue"}}));
  ASSERT_OK_AND_ASSIGN(const std::string bytes, fs_->ReadFile(path_));
  EXPECT_EQ(written.size, static_cast<int64_t>(bytes.size()));
  EXPECT_EQ(written.crc32c, Crc32c(bytes));
  EXPECT_EQ((bytes.size() - 24 - 8) % 8, 0u) << "the header is padded to 8 bytes";
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(*fs_, path_));
  EXPECT_THAT(file->metadata(), ElementsAre(std::pair("format", "pt"), std::pair("kéy", "välue")));
  EXPECT_THAT(NamesInFileOrder(*file), ElementsAre("z", "b\"\n", "a"));
  ASSERT_OK_AND_ASSIGN(const at::Tensor a2, file->Tensor("z"));
  EXPECT_TRUE(at::equal(a, a2));
  ASSERT_OK_AND_ASSIGN(const at::Tensor b2, file->Tensor("b\"\n"));
  EXPECT_EQ(b2.dim(), 0);
  EXPECT_EQ(b2.item<int64_t>(), 7);
  ASSERT_OK_AND_ASSIGN(const at::Tensor none2, file->Tensor("a"));
  EXPECT_EQ(none2.sizes(), at::IntArrayRef({0, 4}));
}

TEST_F(SafetensorsTest, ViewsOutliveTheFileAndDoNotCopy) {
  const at::Tensor a = at::arange(1024, at::kFloat);
  ASSERT_THAT(WriteSafetensors(*fs_, path_, {ToWrite("a", a)}, {}), IsOk());
  at::Tensor view;
  const void* mapped = nullptr;
  {
    ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(*fs_, path_));
    ASSERT_OK_AND_ASSIGN(const std::string_view bytes, file->Bytes("a"));
    mapped = bytes.data();
    ASSERT_OK_AND_ASSIGN(view, file->Tensor("a"));
  }
  EXPECT_EQ(view.const_data_ptr(), mapped);
  EXPECT_TRUE(at::equal(view, a));
}

TEST_F(SafetensorsTest, UnalignedDataIsCopied) {
  const at::Tensor byte = at::full({1}, 9, at::kByte), wide = at::arange(5, at::kDouble);
  ASSERT_THAT(WriteSafetensors(*fs_, path_, {ToWrite("byte", byte), ToWrite("wide", wide)}, {}),
              IsOk());
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(*fs_, path_));
  ASSERT_OK_AND_ASSIGN(const at::Tensor read, file->Tensor("wide"));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(read.const_data_ptr()) % 8, 0u);
  EXPECT_TRUE(at::equal(read, wide));
}

TEST_F(SafetensorsTest, ListsDtypesThatHaveNoTensorType) {
  ASSERT_OK_AND_ASSIGN(const auto file,
                       OpenHeader(R"({"f8":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[0,3]},)"
                                  R"("f4":{"dtype":"F4","shape":[4],"data_offsets":[3,5]}})",
                                  5));
  EXPECT_EQ(file->tensors().size(), 2u);
  ASSERT_OK_AND_ASSIGN(const std::string_view bytes, file->Bytes("f8"));
  EXPECT_EQ(bytes, "\1\1\1");
  EXPECT_THAT(std::string(file->Tensor("f8").status().message()),
              AllOf(HasSubstr("attack.safetensors"), HasSubstr("'f8'"), HasSubstr("F8_E4M3")));
  EXPECT_EQ(file->Tensor("nobody").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SafetensorsTest, BoolHoldsOnlyZeroAndOne) {
  std::string bytes = FileOf(R"({"b":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})", 2);
  ASSERT_OK_AND_ASSIGN(const auto good, OpenBytes(bytes));
  EXPECT_THAT(good->Tensor("b"), IsOk());
  bytes.back() = 2;
  ASSERT_OK_AND_ASSIGN(const auto bad, OpenBytes(bytes));
  EXPECT_THAT(std::string(bad->Tensor("b").status().message()), HasSubstr("neither 0 nor 1"));
}

TEST_F(SafetensorsTest, EmptyTensorSetsAndSpacesAreFine) {
  EXPECT_THAT(OpenHeader("{}", 0), IsOk());
  EXPECT_THAT(OpenHeader("{} \n\t  ", 0), IsOk());
  EXPECT_THAT(OpenHeader(R"({"__metadata__":{}})", 0), IsOk());
  EXPECT_THAT(OpenHeader(R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},)"
                         R"("b":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                         R"("c":{"dtype":"F32","shape":[2,0,3],"data_offsets":[4,4]}})",
                         4),
              IsOk());
}

struct Attack {
  const char* name;
  std::string header;
  size_t data;
  const char* message;
};

std::string One(const std::string& body) { return "{\"t\":{" + body + "}}"; }

std::vector<Attack> Attacks() {
  const std::string f32 = R"("dtype":"F32",)", shape1 = R"("shape":[1],)",
                    at04 = R"("data_offsets":[0,4])";
  const std::string good = f32 + shape1 + at04;
  const std::string twice = "\"t\":{" + good + "}";
  return {
      {"empty header", "", 4, "does not begin with '{'"},
      {"array header", "[]", 0, "does not begin with '{'"},
      {"leading space", " {}", 0, "does not begin with '{'"},
      {"cut header", "{\"t\":{", 4, "not valid JSON at its byte"},
      {"text after the object", "{}x", 0, "not valid JSON"},
      {"comment", "{/* */}", 0, "not valid JSON"},
      {"bad UTF-8", "{\"\xff\":{" + good + "}}", 4, "not valid JSON"},
      {"nested deep", "{\"t\":" + std::string(200000, '['), 0, "has a list where"},
      {"nested objects", R"({"t":{"dtype":{"a":1}}})", 0, "has an object where"},
      {"tensor is no object", R"({"t":1})", 0, "has a number where"},
      {"tensor is null", R"({"t":null})", 0, "has null where"},
      {"duplicate tensor", "{" + twice + "," + twice + "}", 4, "'t' appears twice"},
      {"duplicate key", One(f32 + f32 + shape1 + at04), 4, "'dtype' twice"},
      {"duplicate metadata", R"({"__metadata__":{},"__metadata__":{}})", 0, "appears twice"},
      {"duplicate metadata key", R"({"__metadata__":{"a":"1","a":"2"}})", 0, "'a' twice"},
      {"metadata is a number", R"({"__metadata__":{"a":1}})", 0, "must map strings to strings"},
      {"metadata is nested", R"({"__metadata__":{"a":{}}})", 0, "must map strings to strings"},
      {"metadata is a list", R"({"__metadata__":[]})", 0, "__metadata__"},
      {"unknown key", One(good + R"(,"stride":[1])"), 4, "unknown key 'stride'"},
      {"no dtype", One(shape1 + at04), 4, "needs dtype, shape and data_offsets"},
      {"no shape", One(f32 + at04), 4, "needs dtype, shape and data_offsets"},
      {"no offsets", One(R"("dtype":"F32","shape":[1])"), 4, "needs dtype, shape and data_offsets"},
      {"one offset", One(f32 + shape1 + R"("data_offsets":[0])"), 4, "two data_offsets"},
      {"three offsets", One(f32 + shape1 + R"("data_offsets":[0,4,8])"), 4, "two data_offsets"},
      {"unknown dtype", One(R"("dtype":"F33",)" + shape1 + at04), 4, "unknown dtype 'F33'"},
      {"lower-case dtype", One(R"("dtype":"f32",)" + shape1 + at04), 4, "unknown dtype"},
      {"negative dimension", One(f32 + R"("shape":[-1],)" + at04), 4, "negative number"},
      {"fraction", One(f32 + R"("shape":[1.0],)" + at04), 4, "not an integer"},
      {"exponent", One(f32 + R"("shape":[1e0],)" + at04), 4, "not an integer"},
      {"2^63", One(f32 + R"("shape":[9223372036854775808],)" + at04), 4,
       "not an integer of 63 bits"},
      {"2^64", One(f32 + R"("shape":[18446744073709551616],)" + at04), 4,
       "not an integer of 63 bits"},
      {"text dimension", One(f32 + R"("shape":["1"],)" + at04), 4, "has a string where"},
      {"nested dimension", One(f32 + R"("shape":[[1]],)" + at04), 4, "has a list where"},
      {"product overflow", One(f32 + R"("shape":[4294967296,4294967296,4],)" + at04), 4,
       "overflows"},
      {"product wraps to 4", One(f32 + R"("shape":[4611686018427387905,4],)" + at04), 4,
       "overflows"},
      {"overflow behind zero",
       One(f32 + R"("shape":[0,4294967296,4294967296],"data_offsets":[0,0])"), 0, "overflows"},
      {"half a byte", One(R"("dtype":"F4","shape":[1],"data_offsets":[0,1])"), 1, "whole bytes"},
      {"65 dimensions",
       One(f32 + "\"shape\":[1" +
           [] {
             std::string ones;
             for (int i = 0; i < 64; ++i) ones += ",1";
             return ones;
           }() +
           "]," + at04),
       4, "more than 64 dimensions"},
      {"end before begin", One(f32 + shape1 + R"("data_offsets":[4,0])"), 4, "outside the 4 bytes"},
      {"offset past the end", One(f32 + shape1 + R"("data_offsets":[4,8])"), 4,
       "outside the 4 bytes"},
      {"negative offset", One(f32 + shape1 + R"("data_offsets":[-4,0])"), 4, "negative number"},
      {"huge offsets",
       One(f32 + shape1 + R"("data_offsets":[9223372036854775803,9223372036854775807])"), 4,
       "outside"},
      {"size disagrees", One(f32 + R"("shape":[2],)" + at04), 4,
       "4 bytes of data where its shape and dtype need 8"},
      {"overlap", "{\"a\":{" + good + "},\"b\":{" + good + "}}", 4, "overlaps another one"},
      {"partial overlap",
       R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
       6, "'b' overlaps"},
      {"hole",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
       3, "'b' follows a hole"},
      {"hole at the start", One(R"("dtype":"U8","shape":[1],"data_offsets":[1,2])"), 2,
       "follows a hole"},
      {"data after the last tensor", One(good), 5, "5 bytes of data, its tensors take 4"},
      {"data of nothing", "{}", 1, "1 bytes of data, its tensors take 0"},
      {"truncated data", One(good), 3, "outside the 3 bytes of data (a truncated file?)"},
  };
}

TEST_F(SafetensorsTest, RefusesEveryAttack) {
  for (const Attack& attack : Attacks()) {
    const auto opened = OpenHeader(attack.header, attack.data);
    ASSERT_FALSE(opened.ok()) << attack.name;
    EXPECT_THAT(std::string(opened.status().message()),
                AllOf(HasSubstr(path_ + ": "), HasSubstr(attack.message)))
        << attack.name;
  }
}

TEST_F(SafetensorsTest, RefusesBadLengths) {
  EXPECT_THAT(std::string(OpenBytes("").status().message()),
              HasSubstr("0 bytes: no safetensors header"));
  EXPECT_THAT(std::string(OpenBytes("\2\0\0").status().message()),
              HasSubstr("no safetensors header"));
  EXPECT_THAT(std::string(OpenBytes(FileOf("{}", 0, 3)).status().message()),
              HasSubstr("claims 3 bytes, the file has 2"));
  EXPECT_THAT(std::string(OpenBytes(FileOf("{}", 0, 100'000'001)).status().message()),
              HasSubstr("over the cap"));
  EXPECT_THAT(std::string(OpenBytes(std::string(8, '\xff') + "{}").status().message()),
              HasSubstr("over the cap"));
  EXPECT_FALSE(SafetensorsFile::Open(*fs_, directory_.File("missing")).ok());
  EXPECT_FALSE(SafetensorsFile::Open(*fs_, directory_.path()).ok()) << "a directory";
}

TEST_F(SafetensorsTest, LongNamesDoNotFloodMessages) {
  const std::string header = "{\"" + std::string(5000, 'x') + "\\u0007\":1}";
  EXPECT_LT(OpenHeader(header, 0).status().message().size(), 400u);
}

// A cut file is always refused. A flipped bit may make another valid file (a name, a value), but
// never one whose tensors leave the data.
TEST_F(SafetensorsTest, TruncationsAndBitFlips) {
  const at::Tensor a = at::arange(12, at::kFloat).view({3, 4}), b = at::arange(3, at::kShort);
  ASSERT_THAT(WriteSafetensors(*fs_, path_, {ToWrite("a", a), ToWrite("b", b)}, {{"format", "pt"}}),
              IsOk());
  ASSERT_OK_AND_ASSIGN(const std::string bytes, fs_->ReadFile(path_));
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(OpenBytes(bytes.substr(0, size)).ok()) << size;
  }
  EXPECT_FALSE(OpenBytes(bytes + "x").ok());
  int accepted = 0;
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    const auto file = OpenBytes(flipped);
    if (!file.ok()) continue;
    ++accepted;
    size_t total = 0;
    for (const auto& [name, info] : (*file)->tensors()) {
      ASSERT_OK_AND_ASSIGN(const std::string_view data, (*file)->Bytes(name));
      total += data.size();
    }
    EXPECT_EQ(total, size_t{12 * 4 + 3 * 2}) << "bit " << bit;
  }
  EXPECT_GE(accepted, (12 * 4 + 3 * 2) * 8) << "flips in the data are the checksum's business";
}

TEST_F(SafetensorsTest, WriterRefusesWhatReadersWould) {
  const at::Tensor a = at::arange(2, at::kFloat);
  const auto code = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(WriteSafetensors(*fs_, path_, {ToWrite("a", a), ToWrite("a", a)}, {}).status().code(),
            code);
  EXPECT_EQ(WriteSafetensors(*fs_, path_, {ToWrite("__metadata__", a)}, {}).status().code(), code);
  EXPECT_EQ(WriteSafetensors(*fs_, path_, {ToWrite("\xff", a)}, {}).status().code(), code);
  EXPECT_EQ(WriteSafetensors(*fs_, path_, {{"a", "F33", {1}, "1234"}}, {}).status().code(), code);
  EXPECT_EQ(WriteSafetensors(*fs_, path_, {{"a", "F32", {2}, "1234"}}, {}).status().code(), code);
}

TEST_F(SafetensorsTest, HookRunsOnceInTheMiddleOfTheFile) {
  const at::Tensor a = at::arange(1 << 20, at::kFloat);  // four parts
  const std::vector<TensorToWrite> tensors = {ToWrite("a", a), ToWrite("b", a)};
  int visits = 0;
  int64_t size = 0;
  const auto written = WriteSafetensors(
      *fs_, path_, tensors, {},
      [&](size_t i) -> absl::StatusOr<std::string_view> { return tensors[i].bytes; },
      [&] {
        ++visits;
        size = fs_->Size(path_).value();
      });
  ASSERT_THAT(written, IsOk());
  EXPECT_EQ(visits, 1);
  EXPECT_GT(size, 8);
  EXPECT_LT(size, written->size);
}

}  // namespace
}  // namespace osler
