// Values of the template language and what can be done with them. Internal to
// data/tokenizer/jinja_*.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "data/tokenizer/jinja.h"

namespace osler::jinja {

enum class Kind { kUndefined, kNone, kBool, kInteger, kString, kList, kMessage, kLoop };

// Cheap to copy. Operations give nullopt where Jinja would raise.
struct Value {
  Kind kind = Kind::kUndefined;
  int64_t integer = 0;  // also: bool, index of a message, index of a loop's round
  int64_t size = 0;     // rounds of a loop
  std::shared_ptr<const Text> text;
  std::shared_ptr<const std::vector<Value>> list;

  static Value None();
  static Value Bool(bool value);
  static Value Integer(int64_t value);
  static Value String(Text text);
  static Value List(std::vector<Value> items);
  static Value OfMessage(int64_t index);
  static Value Loop(int64_t round, int64_t rounds);

  bool IsTrue() const;
  bool IsNumber() const { return kind == Kind::kInteger || kind == Kind::kBool; }
  bool Is(std::string_view test) const;
  std::optional<Text> Printed() const;                // str(value), for kinds that templates print
  std::optional<Value> Item(const Value& key) const;  // a message's members are the renderer's
  std::optional<Value> Slice(const Value* first, const Value* last) const;
  std::optional<Value> Strip(bool left, bool right) const;
  std::optional<Value> Length() const;
};

bool Equal(const Value& left, const Value& right);
std::optional<Value> Compare(std::string_view op, const Value& left, const Value& right);
std::optional<Value> Combine(std::string_view op, const Value& left, const Value& right);

}  // namespace osler::jinja
