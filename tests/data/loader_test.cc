#include "data/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/philox.h"
#include "data/lengths_format.h"
#include "tests/data/shard_records.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {

bool operator==(const Pack& a, const Pack& b) {
  return a.number == b.number && a.tokens == b.tokens && a.labels == b.labels &&
         a.doc_starts == b.doc_starts;
}

namespace {

using ::osler::testing::Fails;
using ::osler::testing::IsOk;
using ::osler::testing::TempDir;
using ::osler::testing::TokenRecords;
using ::osler::testing::WriteShards;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class LoaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    encoder_ = *RecordEncoder::Create(*fs_, "");
    std::vector<int64_t> a, b;
    for (int64_t i = 0; i < 150; ++i) a.push_back(1 + static_cast<int64_t>(PhiloxBits(1, i) % 40));
    for (int64_t i = 0; i < 60; ++i) b.push_back(1 + static_cast<int64_t>(PhiloxBits(2, i) % 90));
    ASSERT_THAT(WriteShards(*fs_, temp_.File("a"), TokenRecords(a), 4000), IsOk());
    ASSERT_THAT(WriteShards(*fs_, temp_.File("b"), TokenRecords(b)), IsOk());
    options_.plan = {.sequence_length = 64, .seed = 5, .long_records = LongRecordPolicy::kSplit};
  }
  std::unique_ptr<DataSet> OpenData(double weight_b = 2) {
    auto data =
        DataSet::Open(*fs_, {{temp_.File("a"), 1}, {temp_.File("b"), weight_b}}, *encoder_, 2);
    EXPECT_THAT(data, IsOk());
    return *std::move(data);
  }
  std::unique_ptr<PackStream> Open(const DataSet& data, ReaderShare share = {}, int threads = 1,
                                   int64_t prefetch = 16) {
    StreamOptions options = options_;
    options.share = share;
    options.threads = threads;
    options.prefetch = prefetch;
    auto stream = PackStream::Open(data, options);
    EXPECT_THAT(stream, IsOk());
    return *std::move(stream);
  }
  static std::vector<Pack> Take(PackStream& stream, int64_t count) {
    std::vector<Pack> packs;
    for (int64_t i = 0; i < count; ++i) {
      auto pack = stream.Next();
      EXPECT_THAT(pack, IsOk());
      packs.push_back(*std::move(pack));
    }
    return packs;
  }

  TempDir temp_;
  std::unique_ptr<Fs> fs_ = MakePosixFs();
  std::unique_ptr<RecordEncoder> encoder_;
  StreamOptions options_;
};

TEST_F(LoaderTest, PacksAreTheRecordsThatThePlanNames) {
  const auto data = OpenData();
  EXPECT_EQ(data->records(), 210);
  const auto stream = Open(*data);
  const int64_t packs = stream->EpochStart(1).pack;
  for (const Pack& pack : Take(*stream, packs)) {
    ASSERT_LE(pack.tokens.size(), 64u);
    ASSERT_EQ(pack.tokens.size(), pack.labels.size());
    ASSERT_EQ(pack.doc_starts.at(0), 0);
    for (size_t d = 0; d < pack.doc_starts.size(); ++d) {
      const auto begin = static_cast<size_t>(pack.doc_starts[d]);
      const size_t end = d + 1 < pack.doc_starts.size()
                             ? static_cast<size_t>(pack.doc_starts[d + 1])
                             : pack.tokens.size();
      ASSERT_LT(begin, end);
      EXPECT_EQ(pack.labels[begin], kIgnore);
      for (size_t t = begin + 1; t < end; ++t) {  // ids of one record follow each other
        EXPECT_EQ(pack.tokens[t], pack.tokens[t - 1] + 1);
        EXPECT_EQ(pack.labels[t], pack.tokens[t]);
      }
    }
  }
}

TEST_F(LoaderTest, FileOrderWithoutPackingIsTheFile) {
  ASSERT_THAT(WriteShards(*fs_, temp_.File("c"), TokenRecords({3, 1, 2})), IsOk());
  ASSERT_OK_AND_ASSIGN(const auto data, DataSet::Open(*fs_, {{temp_.File("c"), 1}}, *encoder_, 1));
  StreamOptions options;
  options.plan = {.sequence_length = 3, .packing = Packing::kOff, .order = Order::kFile};
  ASSERT_OK_AND_ASSIGN(const auto stream, PackStream::Open(*data, options));
  const Pack a{0, {0, 1, 2}, {-100, 1, 2}, {0}}, b{1, {1000}, {-100}, {0}},
      c{2, {2000, 2001}, {-100, 2001}, {0}};
  EXPECT_THAT(Take(*stream, 3), ElementsAre(a, b, c));
  EXPECT_EQ(Take(*stream, 1)[0].tokens, a.tokens);  // and again
  options.plan.packing = Packing::kOn;
  ASSERT_OK_AND_ASSIGN(const auto packed, PackStream::Open(*data, options));
  EXPECT_THAT(Take(*packed, 2),
              ElementsAre(a, Pack{1, {1000, 2000, 2001}, {-100, -100, 2001}, {0, 1}}));
}

TEST_F(LoaderTest, AnyNumberOfReadersAndThreadsGivesTheSameStream) {
  const auto data = OpenData();
  const std::vector<Pack> whole = Take(*Open(*data), 300);
  for (int64_t i = 0; i < 300; ++i) ASSERT_EQ(whole[static_cast<size_t>(i)].number, i);
  for (const int64_t readers : {1, 2, 3, 4, 7}) {
    for (int64_t r = 0; r < readers; ++r) {
      const auto stream = Open(*data, {r, readers}, static_cast<int>(readers), 1 + 3 * r);
      for (int64_t g = r; g < 300; g += readers) {
        ASSERT_OK_AND_ASSIGN(const Pack pack, stream->Next());
        ASSERT_EQ(pack, whole[static_cast<size_t>(g)])
            << "reader " << r << " of " << readers << ", pack " << g;
      }
    }
  }
}

TEST_F(LoaderTest, EveryCursorContinuesAsReadingThroughDoes) {
  const auto data = OpenData();
  const int64_t count = 260;  // beyond two epochs
  const auto stream = Open(*data);
  ASSERT_GT(count, stream->EpochStart(2).pack);
  const std::vector<Pack> whole = Take(*stream, count + 8);
  const auto seeker = Open(*data, {}, 2), cursors = Open(*data);
  for (int64_t g = 0; g < count; ++g) {
    ASSERT_OK_AND_ASSIGN(const Cursor cursor, cursors->CursorAt(g));
    ASSERT_EQ(cursor.pack, g);
    ASSERT_OK_AND_ASSIGN(const Cursor stored, Cursor::Parse(cursor.Serialize()));
    ASSERT_THAT(seeker->Seek(stored), IsOk());
    for (int64_t i = g; i < g + (g % 16 == 0 ? 8 : 1); ++i) {
      ASSERT_OK_AND_ASSIGN(const Pack pack, seeker->Next());
      ASSERT_EQ(pack, whole[static_cast<size_t>(i)]) << "from " << g;
    }
  }
}

TEST_F(LoaderTest, AReaderContinuesWithItsOwnFirstPack) {
  const auto data = OpenData();
  const std::vector<Pack> whole = Take(*Open(*data), 120);
  for (const int64_t start : {0, 1, 40, 41, 97}) {
    const auto stream = Open(*data, {1, 3});
    Take(*stream, 3);  // wherever it stood
    ASSERT_OK_AND_ASSIGN(const Cursor cursor, stream->CursorAt(start));
    ASSERT_THAT(stream->Seek(cursor), IsOk());
    int64_t g = start;
    while (g % 3 != 1) ++g;
    EXPECT_EQ(Take(*stream, 1)[0], whole[static_cast<size_t>(g)]);
  }
}

TEST_F(LoaderTest, CursorsAreTheSameOnEveryReaderAndInAnyOrder) {
  const auto data = OpenData();
  const auto a = Open(*data), b = Open(*data, {2, 3});
  Take(*b, 20);
  for (const int64_t pack : {0, 7, 300, 12, 299, 0}) {
    ASSERT_OK_AND_ASSIGN(const Cursor one, a->CursorAt(pack));
    ASSERT_OK_AND_ASSIGN(const Cursor two, b->CursorAt(pack));
    EXPECT_EQ(one, two);
    EXPECT_EQ(one.pack, pack);
  }
  EXPECT_EQ(a->EpochStart(3), b->EpochStart(3));
  EXPECT_THAT(a->CursorAt(-1), Fails(ExitCode::kData, HasSubstr("-1")));
}

TEST_F(LoaderTest, StreamsShareOneDataSet) {
  const auto data = OpenData();
  const std::vector<Pack> whole = Take(*Open(*data), 200);
  std::vector<std::thread> threads;
  std::vector<std::vector<Pack>> got(4);
  for (size_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] { got[i] = Take(*Open(*data, {}, 2), 200); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& packs : got) EXPECT_EQ(packs, whole);
}

TEST_F(LoaderTest, StopsAtOnceWhereverItStands) {
  const auto data = OpenData();
  for (int64_t taken = 0; taken < 30; ++taken) {
    const auto stream = Open(*data, {}, 3, 1 + taken % 5);
    Take(*stream, taken);
  }
}

TEST_F(LoaderTest, AnErrorComesAtItsPlaceAndStays) {
  ASSERT_THAT(WriteShards(*fs_, temp_.File("c"), TokenRecords({3, 4, 5, 6})), IsOk());
  {
    ASSERT_THAT(DataSet::Open(*fs_, {{temp_.File("c"), 1}}, *encoder_, 1), IsOk());
  }  // the sidecar
  const std::string path = temp_.File("c/shard-00000.osd");
  ASSERT_OK_AND_ASSIGN(std::string bytes, fs_->ReadFile(path));
  bytes[4096 + 8 * (3 + 4) + 1] ^= 1;  // in record 2
  ASSERT_THAT(WriteFileDurably(*fs_, path, bytes), IsOk());
  ASSERT_OK_AND_ASSIGN(const auto data, DataSet::Open(*fs_, {{temp_.File("c"), 1}}, *encoder_, 1));
  options_.plan = {.sequence_length = 8, .packing = Packing::kOff, .order = Order::kFile};
  for (const int threads : {1, 4}) {
    const auto stream = Open(*data, {}, threads);
    EXPECT_EQ(Take(*stream, 2)[1].tokens.size(), 4u);
    for (int i = 0; i < 2; ++i) {
      EXPECT_THAT(stream->Next(),
                  Fails(ExitCode::kData,
                        AllOf(HasSubstr("record 2"), HasSubstr(path), HasSubstr("CRC-32C"))));
    }
    ASSERT_THAT(stream->Seek(*stream->CursorAt(3)), IsOk());
    EXPECT_EQ(Take(*stream, 1)[0].tokens.size(), 6u);
  }
  // The damaged record belongs to another reader: this one never touches it.
  EXPECT_EQ(Take(*Open(*data, {1, 2}), 4).back().tokens.size(), 6u);
}

TEST_F(LoaderTest, AStaleSidecarIsAnErrorThatNamesTheRecord) {
  { OpenData(); }
  const std::string sidecar = temp_.File("a/lengths/tokens.bin");
  ASSERT_OK_AND_ASSIGN(const std::string bytes, fs_->ReadFile(sidecar));
  const LengthsKey key{bytes.substr(24, 64), bytes.substr(88, 64), 150};
  ASSERT_OK_AND_ASSIGN(Lengths lengths, ParseLengths(bytes, key));
  ++lengths[17].tokens;
  ASSERT_THAT(WriteFileDurably(*fs_, sidecar, EncodeLengths(lengths, key)), IsOk());
  options_.plan = {.sequence_length = 64, .packing = Packing::kOff, .order = Order::kFile};
  const auto data = OpenData(0);
  const auto stream = Open(*data);
  Take(*stream, 17);
  EXPECT_THAT(stream->Next(),
              Fails(ExitCode::kData, AllOf(HasSubstr("record 17"), HasSubstr("sidecar"),
                                           HasSubstr(temp_.File("a")))));
}

TEST_F(LoaderTest, TheDigestCoversDataAndWeights) {
  EXPECT_EQ(OpenData()->digest(), OpenData()->digest());
  EXPECT_NE(OpenData()->digest(), OpenData(3)->digest());
}

TEST_F(LoaderTest, BadRequestsAreRefused) {
  const auto data = OpenData();
  for (const ReaderShare share : {ReaderShare{0, 0}, ReaderShare{2, 2}, ReaderShare{-1, 2}}) {
    StreamOptions options = options_;
    options.share = share;
    EXPECT_THAT(PackStream::Open(*data, options), Fails(ExitCode::kConfig, HasSubstr("reader")));
  }
  EXPECT_THAT(DataSet::Open(*fs_, {{temp_.File("missing"), 1}}, *encoder_, 1),
              Fails(ExitCode::kData, HasSubstr("missing")));
  ASSERT_OK_AND_ASSIGN(const auto nothing, DataSet::Open(*fs_, {}, *encoder_, 1));
  EXPECT_THAT(PackStream::Open(*nothing, options_),
              Fails(ExitCode::kConfig, HasSubstr("no data source")));
  const auto stream = Open(*data);
  EXPECT_THAT(stream->Seek({5, 0, 9, 0, {1, 2}}),
              Fails(ExitCode::kData, HasSubstr("saved position")));
  EXPECT_THAT(stream->Next(), Fails(ExitCode::kData, HasSubstr("saved position")));
}

}  // namespace
}  // namespace osler
