// The syntax tree of jinja.h, and the lexer below it. Internal to data/tokenizer/jinja_*.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace osler::jinja {

enum class Op {
  // Expressions.
  kString,   // text
  kInteger,  // integer
  kBool,     // integer
  kNone,
  kName,    // text
  kList,    // children
  kDict,    // children: key, value, key, value, …
  kItem,    // children: object, key
  kSlice,   // children: object, first, last, step, each of these or null
  kFilter,  // builtin; children: value and arguments, null where none is given
  kMethod,  // builtin; children: object and arguments, null where none is given
  kCall,    // text: a function or macro; children: arguments, the last of them named by `names`
  kTest,    // text, integer: 1 if negated; children: object
  kConditional,  // children: value, condition, otherwise or null
  kOr,
  kAnd,
  kNot,
  kCompare,  // text: the operator; children: left, right
  kBinary,   // text: + - * // % ~; children: left, right
  kNegate,
  // Statements.
  kData,        // text
  kPrint,       // children: value
  kIf,          // branches: condition (null for else) and body
  kFor,         // names: variables; children: sequence, filter or null; body; branches: of else
  kSet,         // names: variables; children: value
  kSetMember,   // text: variable that holds a namespace; names: its member; children: value
  kSetBlock,    // names: variable; body
  kMacro,       // text; names: parameters; children: their defaults or null; body
  kGeneration,  // body: what a model is to write
  kBreak,
  kContinue,
};

// The filters, methods and functions that templates may call.
enum class Builtin {
  kTrim,  // strip, by its filter's name
  kLeftTrim,
  kRightTrim,
  kLength,
  kToJson,
  kItems,
  kKeys,
  kValues,
  kGet,
  kList,
  kJoin,
  kUpper,
  kLower,
  kFirst,
  kLast,
  kDefault,
  kString,
  kReplace,
  kStartsWith,
  kEndsWith,
  kSplit,
  kSelect,
  kReject,
};

struct Node {
  Op op;
  int line = 0;
  std::string text;
  int64_t integer = 0;
  Builtin builtin = Builtin::kTrim;
  std::vector<std::string> names;
  std::vector<std::unique_ptr<Node>> children;
  std::vector<std::unique_ptr<Node>> body;
  struct Branch {
    std::unique_ptr<Node> condition;
    std::vector<std::unique_ptr<Node>> body;
  };
  std::vector<Branch> branches;
};

using NodePtr = std::unique_ptr<Node>;
using Body = std::vector<NodePtr>;

enum class Lex {
  kData,
  kPrintBegin,
  kPrintEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kSymbol,
  kEnd
};

struct LexToken {
  Lex kind;
  std::string text;
  int line;
};

// The template as tokens, white space control applied. Ends with kEnd.
absl::StatusOr<std::vector<LexToken>> Tokenize(std::string_view source);

absl::Status SyntaxError(int line, std::string_view what);

}  // namespace osler::jinja
