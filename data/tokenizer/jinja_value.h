// Values of the template language and what can be done with them. Internal to
// data/tokenizer/jinja_*.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/tokenizer/jinja.h"
#include "data/tokenizer/jinja_node.h"

namespace osler::jinja {

enum class Kind {
  kUndefined,
  kNone,
  kBool,
  kInteger,
  kString,
  kList,
  kDict,
  kLoop,
  kNamespace,
  kFunction
};

struct Value;
using List = std::vector<Value>;
using Dict = std::vector<std::pair<std::string, Value>>;

// The most items of a list.
inline constexpr size_t kMaxItems = 1'000'000;
// How deep lists and dicts may hold one another.
inline constexpr int kMaxValueDepth = 32;

// Cheap to copy. Operations give nullopt where Jinja would raise, and for lists and depths beyond
// the limits above.
struct Value {
  Kind kind = Kind::kUndefined;
  int64_t integer = 0;   // also: bool, round of a loop, number of a namespace
  int64_t message = -1;  // of a dict: the message it is
  int depth = 0;
  const Node* macro = nullptr;  // of a function that the template defines
  std::shared_ptr<const Text> text;
  std::shared_ptr<const List> list;  // also: what a loop goes over
  std::shared_ptr<const Dict> dict;

  static Value None();
  static Value Bool(bool value);
  static Value Integer(int64_t value);
  static Value String(Text text);
  static std::optional<Value> ListOf(List items);
  static std::optional<Value> DictOf(Dict items);
  static Value OfMessage(int64_t index, Value role, Value content);
  static Value Loop(int64_t round, std::shared_ptr<const List> items);
  static Value Namespace(int64_t number);
  static Value Function(const Node* macro);

  bool IsTrue() const;
  bool IsNumber() const { return kind == Kind::kInteger || kind == Kind::kBool; }
  bool IsString() const { return kind == Kind::kString; }
  bool Is(std::string_view test) const;
  std::optional<Text> Printed() const;                // str(value), for kinds that templates print
  std::optional<Value> Item(const Value& key) const;  // a namespace's members are the renderer's
  std::optional<Value> Slice(const Value* first, const Value* last, const Value* step) const;
  // What a loop over the value goes through.
  std::optional<List> Items() const;
};

bool Equal(const Value& left, const Value& right);
std::optional<Value> Compare(std::string_view op, const Value& left, const Value& right);
std::optional<Value> Combine(std::string_view op, const Value& left, const Value& right);

// A filter or method; arguments that are not given are undefined.
std::optional<Value> CallFilter(Builtin builtin, const Value& value, const List& arguments);
std::optional<Value> CallMethod(Builtin builtin, const Value& object, const List& arguments);

// json.dumps(value, ensure_ascii=False, indent=indent); indent < 0: None.
std::optional<std::string> ToJson(const Value& value, int64_t indent);

}  // namespace osler::jinja
