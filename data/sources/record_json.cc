#include "data/sources/record_json.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "data/sources/reject.h"
#include "data/sources/text_file.h"

namespace osler {
namespace {

constexpr size_t kMaxDepth = 64;

using Json = nlohmann::json;

// Builds the document and stops at the first thing that is not as it should be.
class StrictBuilder : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return Add(nullptr) != nullptr; }
  bool boolean(bool value) override { return Add(value) != nullptr; }
  bool number_integer(number_integer_t value) override { return Add(value) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return Add(value) != nullptr; }
  bool number_float(number_float_t value, const string_t&) override {
    return Add(value) != nullptr;
  }
  bool string(string_t& value) override { return Add(std::move(value)) != nullptr; }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return Enter(Json::object()); }
  bool start_array(std::size_t) override { return Enter(Json::array()); }
  bool end_object() override { return stack_.pop_back(), true; }
  bool end_array() override { return stack_.pop_back(), true; }
  bool key(string_t& name) override {
    const auto [place, is_new] =
        stack_.back()->get_ref<Json::object_t&>().emplace(std::move(name), nullptr);
    if (!is_new) return why_ = "a key is repeated", false;
    member_ = &place->second;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    if (why_.empty()) why_ = absl::StrCat("malformed JSON at byte ", position);
    return false;
  }

  Json TakeRoot() { return std::move(root_); }
  const std::string& why() const { return why_; }

 private:
  Json* Add(Json value) {
    if (stack_.empty()) return &(root_ = std::move(value));
    if (!stack_.back()->is_array()) return &(*member_ = std::move(value));
    auto& items = stack_.back()->get_ref<Json::array_t&>();
    items.push_back(std::move(value));
    return &items.back();
  }
  bool Enter(Json empty) {
    if (stack_.size() == kMaxDepth)
      return why_ = absl::StrCat("nested deeper than ", kMaxDepth), false;
    stack_.push_back(Add(std::move(empty)));
    return true;
  }

  Json root_;
  std::vector<Json*> stack_;  // arrays grow only at their open end, so these stay valid
  Json* member_ = nullptr;
  std::string why_;
};

}  // namespace

absl::StatusOr<nlohmann::json> ParseRecordJson(std::string_view text) {
  if (const auto at = FirstNotUtf8(text); at.has_value())
    return DataError(absl::StrCat("not UTF-8 at byte ", *at + 1));
  // The parser takes a NUL for the end of the text.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos)
    return DataError(absl::StrCat("malformed JSON at byte ", nul + 1));
  StrictBuilder builder;
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
    return DataError(builder.why().empty() ? "malformed JSON" : builder.why());
  }
  return builder.TakeRoot();
}

absl::StatusOr<nlohmann::json> ParseRow(std::string_view text, const Origin& origin) {
  auto document = ParseRecordJson(text);
  if (document.ok()) return document;
  const absl::string_view why = document.status().message();
  return Reject(origin, kMalformed, std::string_view(why.data(), why.size()));
}

}  // namespace osler
